"""How a slide's score comes from its tiles: what a model says, and what of it each tile explains.

Two kinds of models give a slide a score. A tile model gives each tile logits, and a pooling weighs
them (:mod:`pathology.explain.pooled_logits`). A slide model gives each tile features, and an
aggregator makes logits of all of them (:mod:`pathology.explain.aggregated_features`). Either way a
first pass over the tiles leaves each with one number of its own, which a second pass takes apart.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcos_vit.explain import Explanation, check_depth, check_explainable
from pathology.tiling import TileGrid

TILES = "tiles"
"""The depth at which a tile is one place."""

Encoding = Callable[[Tensor], Tensor]
Batches = Callable[[NDArray[np.intp], str], Iterable[tuple[list[int], Tensor]]]
"""Batches of tiles, by their numbers and what is being done: numbers and uint8 tiles."""
TileExplainer = Callable[[Tensor, list[int]], Explanation]
"""Encoded tiles and their numbers to explanations of the tiles' own numbers."""


@dataclass(frozen=True)
class Plan:
    """What is to be explained of each tile.

    ``score = bias + constants + sum of weights * (the tile's own number)``

    Args:
        target: class that is explained.
        weights: ``(n,)`` of the tiles' explanations; a tile of weight 0 is not explained.
        explain: takes tiles apart.
        logits: ``(n, classes)`` of each tile, NaN where not known; None for a slide model.
        score: what the model said of the slide; None where it is the weighted sum of tile logits.
        bias, constants: what no tile owns, in logits.
        columns: further numbers per tile, ``(n,)`` each.
    """

    target: str
    weights: NDArray[np.float64]
    explain: TileExplainer
    logits: NDArray[np.float64] | None = None
    score: float | None = None
    bias: float = 0.0
    constants: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


class Scorer(Protocol):
    """Gives a slide its score."""

    @property
    def encoding(self) -> Encoding:
        """Uint8 tiles to the network's input."""

    @property
    def classes(self) -> list[str]:
        """What can be explained."""

    @property
    def depth(self) -> str:
        """Where explanations stop."""

    @property
    def device(self) -> torch.device:
        """Where tiles go."""

    def plan(self, grid: TileGrid, batches: Batches, target: str | None) -> Plan:
        """The first pass over a slide's tiles, as far as one is needed.

        Args:
            grid: the tiles.
            batches: reads them.
            target: class to explain; the one of the highest score when omitted.
        """


def as_one_place(logits: Tensor, target: int, bias: float) -> Explanation:
    """An explanation that stops at the tile: all of its logit but the bias, in one place.

    Args:
        logits: ``(batch, classes)``.
        target: class.
        bias: of that class, which no place owns.
    """
    logits = logits.detach()
    number = logits[:, target]
    biases = torch.full_like(number, bias)
    return Explanation(
        logits=logits,
        target=torch.full_like(number, target, dtype=torch.int64),
        bias=biases,
        weights=number.new_zeros(len(number), 0, 1, 1),
        contributions=(number - biases)[:, None, None],
        depth=TILES,
    )


def check_tile_depth(model: nn.Module, depth: str) -> None:
    """Refuse a network that cannot be explained as far as ``depth``.

    Raises:
        NotExplainableError: it is not dynamic-linear, and explanations go into tiles.
        ValueError: it does not have that depth.
    """
    if depth != TILES:
        check_explainable(model)
        check_depth(model, depth)
