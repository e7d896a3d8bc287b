"""The score of a slide model: an encoder's features of all tiles, made into logits together.

For an exact aggregator ``score = constants + sum_i g_i . h_i`` with the features ``h_i`` of each
tile and weights ``g_i`` that the whole bag has fixed. A tile's own number is ``g_i . h_i``, and a
B-cos encoder takes it down to pixels: ``h_i = W(x_i) x_i``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import Explanation, explain_classes
from bcos_vit.explain.trace import PIXELS
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.explain import (
    BagExplanation,
    check_sum_over_tiles,
    explain_bag_classes,
)
from pathology.aggregators.readout import Readout
from pathology.aggregators.removal import closed_removal_effects
from pathology.explain.scorers.scorer import (
    TILES,
    Batches,
    Encoding,
    Plan,
    TargetPlan,
    Window,
    as_one_place,
    check_tile_depth,
    each_tile,
    numbers_of,
)
from pathology.explain.targets import Target, one_class
from pathology.tiling import TileGrid

T = TypeVar("T", Tensor, float)


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

    def windows(self, grid: TileGrid, tiles: NDArray[np.intp]) -> list[Window]:
        return each_tile(grid, tiles)

    def plan(
        self, grid: TileGrid, batches: Batches, targets: Sequence[Target], whole: bool
    ) -> Plan:
        return self.planned(grid, self._features(grid, batches), targets)

    def look(
        self, grid: TileGrid, images: Tensor, windows: Sequence[Window]
    ) -> tuple[list[int], Tensor]:
        with torch.no_grad():
            return numbers_of(windows), self.encoder(images)

    def planned(self, grid: TileGrid, known: Tensor, targets: Sequence[Target]) -> Plan:
        features = known
        with torch.no_grad():
            logits = self.aggregator(features[None])[0]
            attention = self.aggregator.attention(features[None])
        if not targets:
            targets = [one_class(self.classes, int(logits.argmax()))]
        asked = [k for k in range(len(self.classes)) if any(t.coefficients[k] for t in targets)]
        bags = dict(zip(asked, explain_bag_classes(self.aggregator, features, asked), strict=True))
        found = [_mixed(target, bags) for target in targets]
        removal = {
            k: effects.effects
            for k in asked
            if (effects := closed_removal_effects(self.aggregator, features, k)) is not None
        }
        plans = []
        for target, bag in zip(targets, found, strict=True):
            columns = {}
            if attention is not None:
                columns["attention"] = attention[0].double().cpu().numpy()
            if removal:
                columns["removal_effect"] = _sum(target, removal).double().cpu().numpy()
            plans.append(
                TargetPlan(
                    target,
                    np.ones(len(grid)),
                    numbers=bag.contributions.double().cpu().numpy(),
                    score=_sum(target, {k: float(logits[k]) for k in asked}),
                    bias=bag.bias,
                    constants=bag.constants,
                    columns=columns,
                )
            )

        def take_apart(images: Tensor, windows: list[Window]) -> Iterator[Explanation]:
            chosen, weights = numbers_of(windows), [bag.weights for bag in found]
            if self.depth == TILES:
                numbers = torch.stack([bag.contributions[chosen] for bag in found], 1)
                for place in range(len(found)):
                    yield as_one_place(numbers, place, torch.zeros_like(numbers[:, place]))
                return
            stacked = torch.stack([each[chosen] for each in weights if each is not None], 1)
            readout = Readout(self.encoder, stacked)
            yield from explain_classes(readout, images, range(len(found)), depth=self.depth)

        return Plan(plans, take_apart)

    def _features(self, grid: TileGrid, batches: Batches) -> Tensor:
        """``(n, features)`` of all tiles, in the order of the grid."""
        parts, order = [], []
        for chosen, tiles in batches(self.windows(grid, np.arange(len(grid))), "encoding"):
            numbers, encoded = self.look(grid, self.encoding(tiles), chosen)
            parts.append(encoded)
            order += numbers
        features = torch.cat(parts)
        return features[torch.as_tensor(np.argsort(order)).to(features.device)]


def _mixed(target: Target, bags: dict[int, BagExplanation]) -> BagExplanation:
    """The bag's explanation of a linear combination of its logits."""
    if target.place is not None:
        return bags[target.place]
    some = next(iter(bags.values()))
    weights = {k: bag.weights for k, bag in bags.items() if bag.weights is not None}
    return BagExplanation(
        logits=some.logits,
        target=-1,
        bias=_sum(target, {k: bag.bias for k, bag in bags.items()}),
        contributions=_sum(target, {k: bag.contributions for k, bag in bags.items()}),
        weights=_sum(target, weights) if weights else None,
        constants={
            name: _sum(target, {k: bag.constants[name] for k, bag in bags.items()})
            for name in some.constants
        },
    )


def _sum(target: Target, of_classes: dict[int, T]) -> T:
    """The target's linear combination of a number per class."""
    shares = {k: share for k, share in enumerate(target.coefficients) if share}
    parts = [of_classes[k] if share == 1 else share * of_classes[k] for k, share in shares.items()]
    return reduce(add, parts)
