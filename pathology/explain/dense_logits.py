"""The score of a dense tile model: logits of tiles that see what lies around them, pooled.

A dense model (:mod:`bcos_vit.models.dense`) evaluates a tile inside a halo, and gives it the same
logit in any block of tiles. So tiles on a common lattice are read, scored and taken apart in
blocks with one halo around them: 4 x 4 tiles of 224 px and a halo of 224 px cost a quarter of the
same tiles each with its own. Contributions lie where pixels do: a tile's logit owns pixels in its
halo as well, and those of the tiles of a block are on the map together, times their weights.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcos_vit.explain import Explanation, explain_classes
from bcos_vit.explain.trace import PIXELS
from bcos_vit.models.dense import CellReadout, Dense
from pathology.explain.pooled_logits import Mixture
from pathology.explain.pooling import MeanPooling, Pooling
from pathology.explain.scoring import (
    TILES,
    Batches,
    Encoding,
    Plan,
    TargetPlan,
    Window,
    check_tile_depth,
)
from pathology.explain.targets import Target, one_class
from pathology.geometry import Box, level0_length
from pathology.tiling import TileGrid

BLOCK_TILES = 4
"""Tiles along a block's side: the halo then costs 1.25 times the block itself for ResNet-18."""
_OFF_LATTICE_PX = 0.01


@dataclass(frozen=True)
class Lattice:
    """Where a grid's tiles lie, in cells of the network.

    Args:
        columns, rows: ``(n,)`` of each tile's upper left corner, from the leftmost and topmost.
        step: cells from one tile to the next at least.
    """

    columns: NDArray[np.intp]
    rows: NDArray[np.intp]
    step: int

    @classmethod
    def of(cls, grid: TileGrid, stride_px: int) -> "Lattice | None":
        """The lattice of ``grid``; None where tiles lie off any."""
        found: list[NDArray[np.intp]] = []
        for places, mpp in zip((grid.x, grid.y), grid.source.mpp, strict=True):
            cells = (places - places.min()) / level0_length(stride_px, grid.spec.mpp, mpp)
            whole = np.rint(cells)
            if np.abs(cells - whole).max() * stride_px > _OFF_LATTICE_PX:
                return None
            found.append(whole.astype(np.intp))
        columns, rows = found
        step = math.gcd(*(int(np.gcd.reduce(each)) for each in found))
        return cls(columns, rows, step)


@dataclass(frozen=True)
class DenseLogits:
    """A dense tile model, whose logits are pooled.

    Of a tile that shares a block only the contributions' sum is told apart (its logit less the
    bias), not its positive and negative parts.

    Args:
        model: in eval mode, its network a B-cos model unless explanations stop at tiles.
        encoding: uint8 tiles to its input.
        classes: in the order of the logits.
        pooling: gives tiles their weights.
        depth: where explanations stop, or :data:`~pathology.explain.scoring.TILES`.
        block_tiles: tiles along a block's side. More are quicker, and take more memory.

    Raises:
        NotExplainableError: the model is not dynamic-linear, and explanations go into tiles.
        ValueError: it does not have that ``depth``; no tile in a block.
    """

    model: Dense
    encoding: Encoding
    classes: list[str]
    pooling: Pooling = field(default_factory=MeanPooling)
    depth: str = PIXELS
    block_tiles: int = BLOCK_TILES

    def __post_init__(self) -> None:
        if self.block_tiles < 1:
            raise ValueError(f"block_tiles must be at least 1, got {self.block_tiles}")
        check_tile_depth(self.model, self.depth)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def windows(self, grid: TileGrid, tiles: NDArray[np.intp]) -> list[Window]:
        return Blocks(self.model, grid, self.block_tiles).windows(tiles)

    def plan(
        self, grid: TileGrid, batches: Batches, targets: Sequence[Target], whole: bool
    ) -> Plan:
        blocks = Blocks(self.model, grid, self.block_tiles)
        logits = np.full((len(grid), len(self.classes)), np.nan)
        with torch.no_grad():
            for chosen, pixels in batches(blocks.windows(np.arange(len(grid))), "scoring"):
                scored = self.model.tile_logits(self.encoding(pixels), grid.spec.size_px)
                numbers = scored.double().cpu().numpy()
                for row, window in enumerate(chosen):
                    down, right = blocks.corners(window).T
                    logits[list(window.tiles)] = numbers[row][:, down, right].T
        if not targets:
            pooled = [self.pooling.weights(column) @ column for column in logits.T]
            targets = [one_class(self.classes, int(np.argmax(pooled)))]
        mixtures = [Mixture.of(target, self.pooling, logits) for target in targets]
        ends = self.model.logits.bias.detach().double().cpu().numpy()
        plans = [
            TargetPlan(
                target, mixture.weights, (mixture.classes * logits).sum(1), mixture.classes @ ends
            )
            for target, mixture in zip(targets, mixtures, strict=True)
        ]
        explainer = _Explainer(self.model, self.depth, blocks, logits, mixtures, plans)
        return Plan(plans, explainer, logits)


@dataclass(frozen=True)
class Blocks:
    """Blocks of a grid's tiles, each with one halo around it.

    Args:
        model: says halo and stride.
        grid: all tiles.
        block_tiles: tiles along a block's side, if they lie on a lattice.

    Raises:
        ValueError: tiles are not whole strides of the network.
    """

    model: Dense
    grid: TileGrid
    block_tiles: int

    @cached_property
    def tile_cells(self) -> int:
        """Cells along a tile's side."""
        return self.model.cells(self.grid.spec.size_px)

    @cached_property
    def lattice(self) -> Lattice | None:
        """Of all tiles; None where each has to stand by itself."""
        return Lattice.of(self.grid, self.model.stride_px)

    @property
    def side(self) -> int:
        """Cells along a block's side, without the halo."""
        return self.tile_cells * (1 if self.lattice is None else self.block_tiles)

    @property
    def halo_cells(self) -> int:
        return self.model.halo_px // self.model.stride_px

    def windows(self, tiles: NDArray[np.intp]) -> list[Window]:
        """Blocks that hold these tiles, of one size, from top to bottom."""
        grid, lattice = self.grid, self.lattice
        if lattice is None:
            order = tiles[np.lexsort((grid.x[tiles], grid.y[tiles]))]
            return [self._window(float(grid.x[i]), float(grid.y[i]), (int(i),)) for i in order]
        # Corners that begin a block's tiles: the last one still has room for its tile.
        step = max(lattice.step, 1)
        reach = (self.side - self.tile_cells + step) // step * step
        down, right = lattice.rows[tiles] // reach, lattice.columns[tiles] // reach
        order = np.lexsort((tiles, right, down))
        ends = np.flatnonzero(np.diff(down[order]) | np.diff(right[order])) + 1
        left, top = float(grid.x.min()), float(grid.y.min())
        windows = []
        for members in np.split(order, ends) if len(order) else []:
            x, y = self._length(reach * right[members[0]]), self._length(reach * down[members[0]])
            numbers = tuple(int(i) for i in tiles[members])
            windows.append(self._window(left + x[0], top + y[1], numbers))
        return windows

    def corners(self, window: Window) -> NDArray[np.intp]:
        """``(tiles, 2)`` row and column of the cell in which each begins, counted in the block."""
        if self.lattice is None:
            return np.zeros((1, 2), np.intp)
        halo = self._length(self.halo_cells)
        tiles = list(window.tiles)
        x, y = self.grid.x[tiles] - window.box.x, self.grid.y[tiles] - window.box.y
        cell = self._length(1)
        return np.rint(np.stack([(y - halo[1]) / cell[1], (x - halo[0]) / cell[0]], 1)).astype(
            np.intp
        )

    def _window(self, x: float, y: float, tiles: tuple[int, ...]) -> Window:
        """The block whose tiles begin at ``x, y``, with its halo."""
        halo, whole = self._length(self.halo_cells), self._length(self.side + 2 * self.halo_cells)
        return Window(Box(x - halo[0], y - halo[1], *whole), tiles)

    def _length(self, cells: int) -> tuple[float, float]:
        """Width and height of so many cells, in level-0 pixels."""
        pixels, mpp = int(cells) * self.model.stride_px, self.grid.spec.mpp
        x, y = (level0_length(pixels, mpp, side) for side in self.grid.source.mpp)
        return x, y


@dataclass(frozen=True)
class _Explainer:
    """Takes blocks apart for several targets after one forward pass.

    Args:
        model: of blocks.
        depth: where to stop.
        blocks: of the grid.
        logits: ``(n, classes)`` of its tiles.
        mixtures: what of each class each target takes.
        plans: the same targets, with their tiles' numbers.
    """

    model: Dense
    depth: str
    blocks: Blocks
    logits: NDArray[np.float64]
    mixtures: Sequence[Mixture]
    plans: Sequence[TargetPlan]

    def __call__(self, images: Tensor, windows: list[Window]) -> Iterator[Explanation]:
        if self.depth == TILES:
            yield from self._tiles(images, windows)
            return
        classes = self.logits.shape[1]
        weights = torch.as_tensor(self._weights(windows)).to(images)
        readout: nn.Module = CellReadout(self.model, weights)
        places = list(range(classes, weights.shape[1]))
        yield from explain_classes(readout, images, places, depth=self.depth)

    def _counted(self, window: Window, mixture: Mixture) -> NDArray[np.float64]:
        """What the numbers of a window's tiles count: a tile alone is not weighed yet."""
        tiles = list(window.tiles)
        return np.ones(1) if len(tiles) == 1 else mixture.weights[tiles]

    def _weights(self, windows: list[Window]) -> NDArray[np.float64]:
        """``(batch, outputs, classes, rows, columns)``: classes themselves, then targets.

        The classes' own are of windows with one tile, whose logits they are.
        """
        classes, side, tile = self.logits.shape[1], self.blocks.side, self._tile
        outputs = classes + len(self.mixtures)
        weights = np.zeros((len(windows), outputs, classes, side, side))
        for row, window in enumerate(windows):
            for number, mixture in enumerate(self.mixtures):
                shares = (
                    self._counted(window, mixture)[:, None] * mixture.classes[list(window.tiles)]
                )
                for share, (down, right) in zip(shares, self.blocks.corners(window), strict=True):
                    cells = np.s_[
                        row, classes + number, :, down : down + tile, right : right + tile
                    ]
                    weights[cells] += share[:, None, None] / tile**2
            if len(window.tiles) == 1:
                ((down, right),) = self.blocks.corners(window)
                for k in range(classes):
                    cells = np.s_[row, k, k, down : down + tile, right : right + tile]
                    weights[cells] = 1 / tile**2
        return weights

    @property
    def _tile(self) -> int:
        return self.blocks.tile_cells

    def _tiles(self, images: Tensor, windows: list[Window]) -> Iterator[Explanation]:
        """Each tile's number less its bias, spread evenly over the tile itself."""
        side, halo, tile = self.blocks.side, self.blocks.halo_cells, self._tile
        for mixture, plan in zip(self.mixtures, self.plans, strict=True):
            assert plan.numbers is not None
            assert plan.biases is not None
            places = np.zeros((len(windows), side + 2 * halo, side + 2 * halo))
            numbers, biases = np.zeros((2, len(windows)))
            for row, window in enumerate(windows):
                tiles = list(window.tiles)
                counted = self._counted(window, mixture)
                numbers[row] = counted @ plan.numbers[tiles]
                biases[row] = counted @ plan.biases[tiles]
                shares = counted * (plan.numbers[tiles] - plan.biases[tiles])
                for share, corner in zip(shares, self.blocks.corners(window), strict=True):
                    down, right = corner + halo
                    places[row, down : down + tile, right : right + tile] += share / tile**2
            # The classes first, of windows with one tile; then what is explained.
            own = self.logits[[window.tiles[0] for window in windows]]
            yield Explanation(
                logits=torch.as_tensor(np.concatenate([own, numbers[:, None]], 1)),
                target=torch.full((len(windows),), own.shape[1], dtype=torch.int64),
                bias=torch.as_tensor(biases),
                weights=torch.zeros(len(windows), 0, *places.shape[1:]),
                contributions=torch.as_tensor(places),
                depth=TILES,
            )
