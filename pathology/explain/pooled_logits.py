"""The score of a tile model: its logits of a slide's tiles, pooled."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from bcos_vit.explain import Explanation, explain
from bcos_vit.explain.trace import PIXELS
from bcos_vit.layers import Logits
from pathology.explain.pooling import MeanPooling, Pooling
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
class PooledLogits:
    """A tile model, whose logits are pooled.

    Args:
        model: a B-cos model in eval mode.
        encoding: uint8 tiles to its input.
        classes: in the order of the logits.
        pooling: gives tiles their weights.
        depth: where explanations stop, or :data:`TILES`.

    Raises:
        NotExplainableError: the model is not dynamic-linear, and explanations go into tiles.
        ValueError: it does not have that ``depth``.
    """

    model: nn.Module
    encoding: Encoding
    classes: list[str]
    pooling: Pooling = field(default_factory=MeanPooling)
    depth: str = PIXELS

    def __post_init__(self) -> None:
        check_tile_depth(self.model, self.depth)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def plan(self, grid: TileGrid, batches: Batches, target: str | None) -> Plan:
        count = len(grid)
        logits = np.full((count, len(self.classes)), np.nan)
        if self.pooling.needs_logits or target is None:
            with torch.no_grad():
                for chosen, tiles in batches(np.arange(count), "scoring"):
                    logits[chosen] = self.model(self.encoding(tiles)).double().cpu().numpy()
        if target is None:
            pooled = [self.pooling.weights(column) @ column for column in logits.T]
            target = self.classes[int(np.argmax(pooled))]
        place = self.classes.index(target)

        def take_apart(images: Tensor, _chosen: list[int]) -> Explanation:
            if self.depth == TILES:
                with torch.no_grad():
                    return as_one_place(self.model(images), place, _bias(self.model, place))
            return explain(self.model, images, target=place, depth=self.depth)

        return Plan(target, self.pooling.weights(logits[:, place]), take_apart, logits)


def _bias(model: nn.Module, place: int) -> float:
    """The constant at the end of a model, 0 where there is none to be told apart."""
    end = getattr(model, "logits", None)
    return float(end.bias[place]) if isinstance(end, Logits) else 0.0
