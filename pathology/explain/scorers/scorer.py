"""How a slide's score comes from its tiles: what a model says, and what of it each tile explains.

Two kinds of models give a slide a score. A tile model gives each tile logits, and a pooling weighs
them (``pooled_logits``, or in blocks with a halo ``dense_logits``). A slide model gives each tile
features, and an aggregator makes logits of all of them (``aggregated_features``). Either way a
first pass over the tiles leaves each with one number of its own per target, which a second pass
takes apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import Explanation, check_depth, check_explainable
from pathology.explain.targets import Target
from pathology.geometry import Box
from pathology.tiling import TileGrid

TILES = "tiles"
"""The depth at which a tile is one place."""

Encoding = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Window:
    """What is read and taken apart at once.

    Args:
        box: what is read, in level-0 pixels.
        tiles: numbers of the tiles whose score it explains; one, of the same box, unless a model
            looks beyond its tiles.
    """

    box: Box
    tiles: tuple[int, ...]


Batches = Callable[[Sequence[Window], str], Iterable[tuple[list[Window], Tensor]]]
"""Batches of windows, given what is being done: the windows and their pixels in uint8."""
WindowExplainer = Callable[[Tensor, list[Window]], Iterator[Explanation]]
"""Encoded windows to an explanation per target, in order; of windows of one tile that tile's own
number, of others the sum of their tiles' numbers times their weights."""


@dataclass(frozen=True)
class TargetPlan:
    """What is to be explained of each tile, for one target.

    ``score = bias + constants + sum of weights * (the tile's own number)``

    Args:
        target: what is explained.
        weights: ``(n,)`` of the tiles' own numbers; a tile of weight 0 is not explained.
        numbers: ``(n,)`` the tiles' own numbers, where the first pass has told them.
        biases: ``(n,)`` what of each number no place owns, with ``numbers``.
        score: what the model said of the slide; None where it is the weighted sum of the numbers.
        bias, constants: what no tile owns, in logits.
        columns: further numbers per tile, ``(n,)`` each.
    """

    target: Target
    weights: NDArray[np.float64]
    numbers: NDArray[np.float64] | None = None
    biases: NDArray[np.float64] | None = None
    score: float | None = None
    bias: float = 0.0
    constants: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def shares(self) -> NDArray[np.float64] | None:
        """``(n,)`` what each tile adds to the score beyond its bias, where known."""
        if self.numbers is None:
            return None
        biases = 0.0 if self.biases is None else self.biases
        return np.where(self.weights > 0, self.weights * (self.numbers - biases), 0.0)

    @property
    def known_score(self) -> float:
        """What the first pass alone says of the slide.

        Raises:
            ValueError: it has not told the tiles' own numbers.
        """
        if self.score is not None:
            return self.score
        if self.numbers is None:
            raise ValueError("the plan does not tell the tiles' own numbers")
        used = self.weights > 0
        return float(self.weights[used] @ self.numbers[used])


@dataclass(frozen=True)
class Plan:
    """What is to be explained of a slide.

    Args:
        targets: one or several.
        explain: takes windows apart; the first columns of its explanations' logits are the
            classes' where ``logits`` is given.
        logits: ``(n, classes)`` of each tile, NaN where not known; None for a slide model.
    """

    targets: Sequence[TargetPlan]
    explain: WindowExplainer
    logits: NDArray[np.float64] | None = None


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

    def windows(self, grid: TileGrid, tiles: NDArray[np.intp]) -> list[Window]:
        """How tiles are read: windows of one size, from top to bottom.

        Args:
            grid: all tiles.
            tiles: numbers of those to read.
        """

    def plan(
        self, grid: TileGrid, batches: Batches, targets: Sequence[Target], whole: bool
    ) -> Plan:
        """The first pass over a slide's tiles, as far as one is needed.

        Args:
            grid: the tiles.
            batches: reads windows.
            targets: what to explain; the class of the highest score when there is none.
            whole: whether the tiles' own numbers must be known.
        """

    def look(
        self, grid: TileGrid, images: Tensor, windows: Sequence[Window]
    ) -> tuple[list[int], Tensor]:
        """What the first pass tells of the tiles in some windows.

        Args:
            grid: all tiles.
            images: the windows, encoded.
            windows: which.

        Returns:
            Numbers of tiles, and ``(tiles, k)`` their logits or features.
        """

    def planned(self, grid: TileGrid, known: Tensor, targets: Sequence[Target]) -> Plan:
        """The plan of a slide whose first pass is done.

        Args:
            grid: the tiles.
            known: ``(n, k)`` what :meth:`look` told of each; NaN for logits that are not known.
            targets: as for :meth:`plan`.
        """


def each_tile(grid: TileGrid, tiles: NDArray[np.intp]) -> list[Window]:
    """A window per tile, from top to bottom."""
    width, height = grid.tile_size
    order = tiles[np.lexsort((grid.x[tiles], grid.y[tiles]))]
    return [
        Window(Box(float(grid.x[i]), float(grid.y[i]), width, height), (int(i),)) for i in order
    ]


def numbers_of(windows: Sequence[Window]) -> list[int]:
    """The tiles' numbers, of windows of one tile."""
    return [window.tiles[0] for window in windows]


def as_one_place(logits: Tensor, target: int, biases: Tensor) -> Explanation:
    """An explanation that stops at the tile: all of its logit but the bias, in one place.

    Args:
        logits: ``(batch, classes)``.
        target: class.
        biases: ``(batch,)`` of that class, which no place owns.
    """
    logits = logits.detach()
    number = logits[:, target]
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
        try:
            check_explainable(model)
        except NotExplainableError as error:
            way = f"; or let explanations stop at tiles, which any model has (--depth {TILES})"
            raise NotExplainableError(f"{error}{way}") from error
        check_depth(model, depth)
