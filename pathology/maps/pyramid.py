"""What the coarser levels of a slide map hold, made a strip of rows at a time.

What a reduced pixel holds depends on the map::

    sum    s' = sum of 2 x 2         for additive maps: every level has the same total
    mean   N' = sum of 2 x 2 N,  W' = sum of 2 x 2 W,  value N'/W'   for densities; N = value * W

NaN is "nothing measured": it adds nothing, and a reduced pixel is NaN only where all four are.
Ratios are never averaged.

A sum pyramid grows about fourfold per level, so under one fixed colour range it looks stronger the
further one zooms out; to look at, write the density with ``levels="mean"``.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap

Levels = Literal["sum", "mean"]

STRIP_ROWS = 128


def check_levels(slide_map: SlideMap, levels: Levels, weights: NDArray[Any] | None) -> None:
    """Refuse what no pyramid can be made of.

    Args:
        slide_map: the map.
        levels: ``"sum"`` for additive maps, ``"mean"`` for densities and other intensive ones.
        weights: ``(height, width)`` W for ``levels="mean"``; every covered pixel weighs the same
            when omitted.

    Raises:
        ValueError: unknown ``levels``, weights of another shape or with sums.
    """
    if levels not in ("sum", "mean"):
        raise ValueError(f'levels must be "sum" or "mean", got {levels!r}')
    if weights is not None and (levels == "sum" or weights.shape != slide_map.values.shape):
        raise ValueError(
            f'weights go with levels="mean" and the map\'s shape {slide_map.values.shape}, got '
            f"levels={levels!r} and {weights.shape}"
        )


def shrink(
    slide_map: SlideMap,
    max_side: int,
    levels: Levels = "sum",
    weights: NDArray[Any] | None = None,
) -> SlideMap:
    """The first reduced level with no side above ``max_side``, in memory; for pictures.

    Args:
        slide_map: the map; its values may lie on disk, and are read a strip at a time.
        max_side: largest width and height in pixels.
        levels: as for :func:`check_levels`.
        weights: likewise.

    Returns:
        A map of float64 at ``2**k`` times the pixel size, reaching over the map's right and bottom
        edges by less than one such pixel; the map itself where it is small enough.

    Raises:
        ValueError: ``max_side`` below 1, or as :func:`check_levels` says.
    """
    if max_side < 1:
        raise ValueError(f"max_side must be at least 1, got {max_side}")
    check_levels(slide_map, levels, weights)
    halvings = 0
    while -(-max(slide_map.values.shape) // 2**halvings) > max_side:
        halvings += 1
    if not halvings:
        return slide_map
    base = Level(slide_map.values, weights, levels)
    # Strips that begin at a multiple of 2**halvings can be reduced to the end on their own.
    step = 2**halvings * max(1, STRIP_ROWS // 2**halvings)
    strips = [base.reduced(top, bottom, halvings) for top, bottom in base.strips(step)]
    values = np.concatenate(strips)
    down_x, down_y = (side * 2**halvings for side in slide_map.downsample)
    height, width = values.shape
    box = Box(slide_map.box.x, slide_map.box.y, width * down_x, height * down_y)
    return SlideMap(values, box, slide_map.slide_mpp, slide_map.unit)


@dataclass(frozen=True)
class Level:
    """One level as a numerator N and a weight W; the value is N for sums, N/W for means.

    Args:
        total: ``(height, width)``, N, or the values themselves at the base.
        weight: ``(height, width)``, W; at the base ``None`` for 1 wherever there is a value.
        levels: sum or mean.
        is_ratio: whether ``total`` holds the finished values, as the base does.
    """

    total: NDArray[Any]
    weight: NDArray[Any] | None
    levels: Levels
    is_ratio: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        height, width = self.total.shape
        return height, width

    def strips(self, rows: int) -> Iterator[tuple[int, int]]:
        """Row ranges from top to bottom."""
        height = self.shape[0]
        for top in range(0, height, rows):
            yield top, min(top + rows, height)

    def tiles(self, side: int) -> Iterator[NDArray[np.float32]]:
        """Tiles in reading order, ``side x side`` each; what lies past the raster is NaN."""
        width = self.shape[1]
        for top, bottom in self.strips(side):
            strip = self.rows(top, bottom).astype(np.float32)
            for left in range(0, width, side):
                block = strip[:, left : left + side]
                tile = np.full((side, side), np.nan, np.float32)
                tile[: block.shape[0], : block.shape[1]] = block
                yield tile

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        """The values of some rows, NaN where uncovered."""
        total = _read(self.total, top, bottom)
        if self.is_ratio or self.weight is None:
            return total
        weight = _read(self.weight, top, bottom)
        values = np.full(total.shape, np.nan)
        if self.levels == "sum":
            values[weight > 0] = total[weight > 0]
        else:
            np.divide(total, weight, out=values, where=weight > 0)
        return values

    def reduced(self, top: int, bottom: int, halvings: int) -> NDArray[np.float64]:
        """The values that some rows have ``halvings >= 1`` levels further down."""
        total, weight = self.halved(top, bottom)
        for _ in range(halvings - 1):
            total, weight = _sum_2x2(total), _sum_2x2(weight)
        level = Level(total, weight, self.levels, is_ratio=False)
        return np.asarray(level.rows(0, level.shape[0]), dtype=np.float64)

    def halved(self, top: int, bottom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """N and W of the next level's rows ``top // 2 .. ceil(bottom / 2)``; ``top`` is even.

        For sums W only says whether a pixel is covered.
        """
        total = _read(self.total, top, bottom).astype(np.float64)
        if self.weight is None:
            weight = np.isfinite(total).astype(np.float64)
        else:
            weight = np.nan_to_num(_read(self.weight, top, bottom).astype(np.float64))
        if self.is_ratio:
            weight[~np.isfinite(total)] = 0.0
            total = np.nan_to_num(total, nan=0.0, posinf=0.0, neginf=0.0)
            if self.levels == "mean":
                total *= weight
        return _sum_2x2(total), _sum_2x2(weight)


def reduced_levels(base: Level, scratch: Path, largest_side: int) -> list[Level]:
    """``base`` and every level below it, down to the first with no side above ``largest_side``.

    The reduced ones lie in ``scratch`` as raw float64, and are read from there.
    """
    pyramid = [base]
    while max(pyramid[-1].shape) > largest_side:
        finer, k = pyramid[-1], len(pyramid)
        height, width = (-(-side // 2) for side in finer.shape)
        names = scratch / f"{k}.total", scratch / f"{k}.weight"
        with names[0].open("wb") as totals, names[1].open("wb") as weights:
            for top, bottom in finer.strips(STRIP_ROWS):
                total, weight = finer.halved(top, bottom)
                totals.write(total.data)
                weights.write(weight.data)
        total_map, weight_map = (
            np.memmap(name, np.float64, mode="r", shape=(height, width)) for name in names
        )
        pyramid.append(Level(total_map, weight_map, base.levels, is_ratio=False))
    return pyramid


def _sum_2x2(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of 2 x 2 pixels; an odd edge is met by zeros."""
    height, width = values.shape
    if height % 2 or width % 2:
        values = np.pad(values, ((0, height % 2), (0, width % 2)))
    pairs: NDArray[np.float64] = values[0::2] + values[1::2]
    sums: NDArray[np.float64] = pairs[:, 0::2] + pairs[:, 1::2]
    return sums


def _read(values: NDArray[Any], top: int, bottom: int) -> NDArray[Any]:
    """Some rows; of a memory-mapped file by a plain read, whose pages do not count as ours."""
    if (
        isinstance(values, np.memmap)
        and isinstance(values.base, mmap.mmap)
        and values.filename is not None
        and values.mode != "c"  # what was changed is not in the file
        and values.flags.c_contiguous
    ):
        width = values.shape[1]
        offset = values.offset + top * width * values.itemsize
        count = (bottom - top) * width
        return np.fromfile(values.filename, values.dtype, count, offset=offset).reshape(-1, width)
    return values[top:bottom]
