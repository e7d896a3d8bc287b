"""Blocks: tiles on a common lattice that are read together, with one halo around them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bcos_vit.models.dense import Dense
from pathology.explain.scorers.scorer import Window
from pathology.geometry import Box, level0_length
from pathology.tiling import TileGrid

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
