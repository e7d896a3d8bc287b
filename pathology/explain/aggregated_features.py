"""The score of a slide model: an encoder's features of all tiles, made into logits together.

For an exact aggregator ``score = constants + sum_i g_i . h_i`` with the features ``h_i`` of each
tile and weights ``g_i`` that the whole bag has fixed. A tile's own number is ``g_i . h_i``, and a
B-cos encoder takes it down to pixels: ``h_i = W(x_i) x_i``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import Explanation, explain
from bcos_vit.explain.trace import PIXELS
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.explain import check_sum_over_tiles, explain_bag
from pathology.aggregators.readout import Readout
from pathology.aggregators.removal import closed_removal_effects
from pathology.explain.scoring import (
    TILES,
    Batches,
    Encoding,
    Plan,
    as_one_place,
    check_tile_depth,
)
from pathology.tiling import TileGrid


@dataclass(frozen=True)
class AggregatedFeatures:
    """A slide model: an encoder's features of all tiles, made into logits by an aggregator.

    Args:
        encoder: in eval mode, ``(batch, features)`` from its input; a B-cos model, unless
            explanations stop at tiles.
        encoding: uint8 tiles to its input.
        aggregator: in eval mode.
        classes: names of the aggregator's outputs.
        depth: where explanations stop, or :data:`TILES`.

    Raises:
        NotExplainableError: the aggregator is no sum over tiles; or explanations go into tiles, and
            it is not linear in their features, or the encoder not dynamic-linear.
        ValueError: it does not have that ``depth``.
    """

    encoder: nn.Module
    encoding: Encoding
    aggregator: Aggregator
    classes: list[str]
    depth: str = PIXELS

    def __post_init__(self) -> None:
        check_sum_over_tiles(self.aggregator)
        if self.depth != TILES and not self.aggregator.exact:
            raise NotExplainableError(
                f"{type(self.aggregator).__name__} is a sum over tiles that is not linear in their"
                f" features: its explanations stop at {TILES} (--depth {TILES})"
            )
        check_tile_depth(self.encoder, self.depth)

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def plan(self, grid: TileGrid, batches: Batches, target: str | None) -> Plan:
        features = self._features(len(grid), batches)
        with torch.no_grad():
            logits = self.aggregator(features[None])[0]
            attention = self.aggregator.attention(features[None])
        if target is None:
            target = self.classes[int(logits.argmax())]
        place = self.classes.index(target)
        bag = explain_bag(self.aggregator, features, place)

        def take_apart(images: Tensor, chosen: list[int]) -> Explanation:
            if bag.weights is None or self.depth == TILES:
                return as_one_place(bag.contributions[chosen][:, None], 0, 0.0)
            readout = Readout(self.encoder, bag.weights[chosen])
            return explain(readout, images, target=0, depth=self.depth)

        columns = {}
        if attention is not None:
            columns["attention"] = attention[0].double().cpu().numpy()
        removal = closed_removal_effects(self.aggregator, features, place)
        if removal is not None:
            columns["removal_effect"] = removal.effects.cpu().numpy()
        return Plan(
            target,
            np.ones(len(grid)),
            take_apart,
            score=float(logits[place]),
            bias=bag.bias,
            constants=bag.constants,
            columns=columns,
        )

    def _features(self, count: int, batches: Batches) -> Tensor:
        """``(n, features)`` of all tiles."""
        parts = []
        with torch.no_grad():
            for _, tiles in batches(np.arange(count), "encoding"):
                parts.append(self.encoder(self.encoding(tiles)))
        return torch.cat(parts)
