"""What lies in a region of an additive map: the exact sum, whatever its shape.

What a map pixel holds is spread evenly over it, so that of a pixel that the outline cuts the part
of its area counts that lies inside (and on the slide: the last pixels of a map reach over its edge,
and hold nothing from there). Every level of the pyramid keeps the sum. So pixels that lie wholly
inside are read at a level coarse enough for their number, and only where the outline runs are finer
ones read, down to the finest: time goes with the outline's length, and the area costs a bounded
number of pixels. Values are float32 and their sums float64: what is read at a coarse level was
rounded there, to 6e-8 of itself, so the sum is right to 6e-8 of the sum of what is read, without
signs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box, Mpp
from pathology.viewer.regions.outline import Outline

INSIDE_PX = 1 << 22
"""Pixels wholly inside that are read at most, plus those along the outline."""
SIDE_PX = 512
"""Pixels are read in squares of this side, as maps store them."""


class SumMap(Protocol):
    """A map whose levels keep its sum; a :class:`~pathology.maps.stored_map.StoredMap` is one."""

    @property
    def box(self) -> Box:
        """What its pixels cover, in level-0 pixels of the slide."""

    @property
    def slide_mpp(self) -> Mpp:
        """Of the slide."""

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """``(height, width)`` of each level, the finest first; four pixels make one of the next."""

    def read(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Pixels of a level, NaN where nothing was placed."""


@dataclass(frozen=True)
class RegionSum:
    """What a map says of a region.

    Args:
        positive: what is for the target, in the map's unit.
        negative: what is against it, at most 0. What is for and against within one pixel of
            ``at_um`` (along the outline, of a finer one) was added up before.
        covered_mm2: area where the map has values, as far as pixels of ``at_um`` tell.
        at_um: side of the pixels that were read inside of the region, in micrometres.
    """

    positive: float
    negative: float
    covered_mm2: float
    at_um: float

    @property
    def sum(self) -> float:
        """What all of the region adds to the score."""
        return self.positive + self.negative


def region_sum(sums: SumMap, region: Any, slide: Box, inside_px: int = INSIDE_PX) -> RegionSum:
    """The exact sum of a map in a region.

    Args:
        sums: the map.
        region: a valid polygon or multipolygon in level-0 pixels.
        slide: the slide; what of the region lies beside it, or beside the map, adds nothing.
        inside_px: pixels that are read at most of what is wholly inside; the more, the finer
            ``positive`` and ``negative`` tell apart.

    Raises:
        AnnotationError: the outline is too long, see
            :data:`pathology.viewer.regions.outline.LONGEST`.
        PathologyError: the map cannot be read.
    """
    height, width = sums.shapes[0]
    x_px, y_px = sums.box.width / width, sums.box.height / height
    shape, visible = _on_map(sums, region, slide)
    start = _level(shape.area, len(sums.shapes), inside_px)
    outlines = [Outline.of(shape)]
    for _ in range(start):
        outlines.append(outlines[-1].coarser())
    found = _Parts()
    for values in _runs(sums, outlines[start]):
        found.add(values, 4.0**start)
    for finer, coarser in reversed(list(pairwise(outlines))):
        rows, columns = _children(coarser)
        is_whole = finer.are_whole(rows, columns)
        for values, _ in _scattered(sums, finer.level, rows[is_whole], columns[is_whole]):
            found.add(values, 4.0**finer.level)
    rows, columns, shares = outlines[0].cut()
    # Of a pixel that reaches over the slide's edge all lies in the part that does not.
    on_slide = np.where(columns == width - 1, visible[0], 1.0)
    on_slide *= np.where(rows == height - 1, visible[1], 1.0)
    weights = np.minimum(shares / on_slide, 1.0)
    for values, which in _scattered(sums, 0, rows, columns):
        found.add(values * weights[which], shares[which])
    pixel = Mpp(x_px * sums.slide_mpp.x, y_px * sums.slide_mpp.y)
    return RegionSum(
        positive=found.positive,
        negative=found.negative,
        covered_mm2=found.covered * float(pixel.x * pixel.y) * 1e-6,
        at_um=float(max(pixel)) * 2**start,
    )


class _Parts:
    """Sums of what is read, in float64."""

    def __init__(self) -> None:
        self.positive = self.negative = self.covered = 0.0

    def add(self, values: NDArray[Any], pixels: float | NDArray[np.float64]) -> None:
        """Values ``(n,)``, NaN where nothing was placed; how many finest pixels each stands for."""
        is_there = np.isfinite(values)
        self.positive += float(values.sum(where=is_there & (values > 0), dtype=np.float64))
        self.negative += float(values.sum(where=is_there & (values < 0), dtype=np.float64))
        if isinstance(pixels, float):
            self.covered += pixels * int(is_there.sum())
        else:
            self.covered += float(pixels[is_there].sum())


def _on_map(sums: SumMap, region: Any, slide: Box) -> tuple[Any, tuple[float, float]]:
    """A region on slide and map, in map pixels; how much of the last column and row is slide."""
    import shapely

    height, width = sums.shapes[0]
    box = sums.box
    scale = np.array([width / box.width, height / box.height])
    corner = np.array([box.x, box.y])
    right, bottom = (np.array([slide.right, slide.bottom]) - corner) * scale
    left, top = np.maximum((np.array([slide.x, slide.y]) - corner) * scale, 0.0)
    frame = shapely.box(left, top, min(right, width), min(bottom, height))
    shape = shapely.transform(region, lambda points: (points - corner) * scale)
    if not frame.contains_properly(shape):
        shape = shapely.intersection(shape, frame)
        parts = shapely.get_parts(shapely.get_parts(shape))
        shape = shapely.multipolygons(parts[shapely.get_type_id(parts) == 3])
    # Zero or less where the map's last pixels lie beside the slide, and so in no region.
    visible = [min(edge - (last - 1), 1.0) for edge, last in ((right, width), (bottom, height))]
    return shape, (max(visible[0], 1e-12), max(visible[1], 1e-12))


def _level(area: float, levels: int, most: int) -> int:
    """The finest level at which ``area`` finest pixels are at most ``most``, or the last."""
    halvings = max(0, math.ceil(math.log(max(area, 1) / most, 4)))
    return min(halvings, levels - 1)


def _children(outline: Outline) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns on the finer level of the pixels that the outline cuts."""
    rows, columns, _ = outline.cut()
    down, right = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    return (2 * rows[:, None] + down).ravel(), (2 * columns[:, None] + right).ravel()


def _runs(sums: SumMap, outline: Outline) -> Iterator[NDArray[Any]]:
    """Values of the pixels that lie wholly inside, some rows at a time."""
    rows, firsts, ends = outline.runs()
    level = outline.level
    height, width = sums.shapes[level]
    ends = np.minimum(ends, width)
    for top in range(0, height, SIDE_PX):
        which = (rows >= top) & (rows < top + SIDE_PX) & (firsts < ends)
        if not which.any():
            continue
        down = min(SIDE_PX, height - top)
        left, right = int(firsts[which].min()), int(ends[which].max())
        steps = np.zeros((down, right - left + 1), np.int8)
        np.add.at(steps, (rows[which] - top, firsts[which] - left), 1)
        np.add.at(steps, (rows[which] - top, ends[which] - left), -1)
        is_inside = np.cumsum(steps[:, :-1], axis=1, dtype=np.int8).view(np.bool_)
        for start in range(left // SIDE_PX * SIDE_PX, right, SIDE_PX):
            part = slice(max(start, left), min(start + SIDE_PX, right))
            mask = is_inside[:, part.start - left : part.stop - left]
            lines = np.flatnonzero(mask.any(axis=1))
            if len(lines):
                mask = mask[lines[0] : lines[-1] + 1]
                first = top + int(lines[0])
                values = sums.read(level, first, part.start, len(mask), part.stop - part.start)
                yield values[mask]


def _scattered(
    sums: SumMap, level: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[tuple[NDArray[Any], NDArray[np.intp]]]:
    """Values of single pixels, those of one square after the other, and which they are."""
    height, width = sums.shapes[level]
    squares = rows // SIDE_PX * (width // SIDE_PX + 1) + columns // SIDE_PX
    is_there = (rows < height) & (columns < width)
    order = np.flatnonzero(is_there)
    order = order[np.argsort(squares[order], kind="stable")]
    cuts = np.flatnonzero(np.diff(squares[order])) + 1
    for which in np.split(order, cuts) if len(order) else ():
        top, left = int(rows[which].min()), int(columns[which].min())
        down, right = int(rows[which].max()) + 1 - top, int(columns[which].max()) + 1 - left
        values = sums.read(level, top, left, down, right)
        yield values[rows[which] - top, columns[which] - left], which
