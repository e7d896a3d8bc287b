"""Which pixels of a pyramid lie in a polygon, and by how much: exact areas, from the outline alone.

An outline is cut at every grid line into pieces that lie in one pixel each. A piece covers the band
of its own height to its right, so that for a closed outline::

    share of a pixel inside = area right of its own pieces + heights of all pieces left of it

along a row, with signs by the piece's direction. Only pixels with pieces are held: between two of
them a row is wholly inside or wholly outside. Four pixels make one of the next level by sums, so
all levels follow from the finest. Time and memory go with the outline's length, not with the area.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pathology.errors import AnnotationError

LONGEST = 2_000_000
"""Pixels of the finest level that an outline may cross, which bounds memory."""
PIECES = 1 << 18
"""Pieces that are made at once."""
ROUNDING = 1e-9
"""A finest pixel whose share is this close to 0 or 1 is wholly outside or inside."""

ROW = np.int64(1) << 32  # of a pixel's key: row * ROW + column


@dataclass(frozen=True)
class Outline:
    """The pixels of one level that an outline touches, in reading order.

    Args:
        level: 0 the finest.
        keys: ``(n,)`` ascending, ``row * 2**32 + column``.
        heights: ``(n,)`` signed sums of their pieces' heights, in pixels of the level.
        areas: ``(n,)`` signed areas right of their pieces, within the pixel.
        holds_cut: ``(n,)`` whether a pixel of a finer level in it is inside in part only.
    """

    level: int
    keys: NDArray[np.int64]
    heights: NDArray[np.float64]
    areas: NDArray[np.float64]
    holds_cut: NDArray[np.bool_]

    @classmethod
    def of(cls, polygons: Any) -> Self:
        """The outline of a valid (multi)polygon in pixels of the finest level, none negative.

        Raises:
            AnnotationError: it is too long, see :data:`LONGEST`.
        """
        starts, ends = _edges(polygons)
        length = float(np.abs(ends - starts).sum())
        if not length <= LONGEST:
            raise AnnotationError(
                f"the outline crosses {length:,.0f} pixels of the map, at most {LONGEST:,} can be"
                " summed; draw it simpler, or as several regions"
            )
        keys, heights, areas = np.empty(0, np.int64), np.empty(0), np.empty(0)
        for part in _chunks(starts, ends):
            more = _pieces(starts[part], ends[part])
            keys, (heights, areas) = _added(
                np.concatenate([keys, more[0]]),
                np.concatenate([heights, more[1]]),
                np.concatenate([areas, more[2]]),
            )
        return cls(0, keys, heights, areas, np.zeros(len(keys), np.bool_))

    def coarser(self) -> Self:
        """The outline on the next level, whose pixels are four of this one."""
        rows, columns = self.keys // ROW, self.keys % ROW
        # A piece in a left column covers the pixel right of it, too.
        areas = (self.areas + self.heights * (1 - columns % 2)) / 4
        keys, (heights, areas, cuts) = _added(
            rows // 2 * ROW + columns // 2, self.heights / 2, areas, self.is_cut.astype(np.float64)
        )
        return type(self)(self.level + 1, keys, heights, areas, cuts > 0)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """``(n,)`` of the pixels' areas inside, 0 to 1."""
        return np.clip(self._after - self.heights + self.areas, 0.0, 1.0)

    @cached_property
    def is_cut(self) -> NDArray[np.bool_]:
        """``(n,)`` whether a pixel is inside in part only, or holds a finer one that is."""
        # A coarse pixel that holds no cut one is inside by quarters. Its own share would not do:
        # one that is nearly whole would be taken as whole, and what is cut in it counted again.
        near = 0.125 if self.level else ROUNDING
        is_cut: NDArray[np.bool_] = self.holds_cut | (
            (self.shares > near) & (self.shares < 1 - near)
        )
        return is_cut

    def cut(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Rows, columns and shares of the pixels that are inside in part."""
        keys = self.keys[self.is_cut]
        return keys // ROW, keys % ROW, self.shares[self.is_cut]

    def runs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows, first columns and columns behind the last, of runs of pixels wholly inside."""
        rows, columns = self.keys // ROW, self.keys % ROW
        whole = np.flatnonzero(self._is_whole)
        left = np.flatnonzero(self._goes_on[:-1] & (rows[:-1] == rows[1:]))
        left = left[columns[left] + 1 < columns[left + 1]]
        return (
            np.concatenate([rows[whole], rows[left]]),
            np.concatenate([columns[whole], columns[left] + 1]),
            np.concatenate([columns[whole] + 1, columns[left + 1]]),
        )

    def are_whole(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether pixels lie wholly inside, touched or not."""
        if not len(self.keys):
            return np.zeros(len(rows), np.bool_)
        keys = rows * ROW + columns
        found = np.searchsorted(self.keys, keys, side="right") - 1
        left = np.maximum(found, 0)
        is_between = (self.keys[left] // ROW == rows) & self._goes_on[left]
        whole: NDArray[np.bool_] = (found >= 0) & np.where(
            self.keys[left] == keys, self._is_whole[left], is_between
        )
        return whole

    @cached_property
    def _after(self) -> NDArray[np.float64]:
        """``(n,)`` heights of all pieces up to and in a pixel, along its row."""
        rows, total = self.keys // ROW, np.cumsum(self.heights)
        first = np.searchsorted(rows, rows)
        after: NDArray[np.float64] = total - np.where(first > 0, total[first - 1], 0.0)
        return after

    @property
    def _goes_on(self) -> NDArray[np.bool_]:
        """``(n,)`` whether pixels right of a touched one, up to the next, are wholly inside."""
        goes_on: NDArray[np.bool_] = self._after > 0.5
        return goes_on

    @property
    def _is_whole(self) -> NDArray[np.bool_]:
        """``(n,)`` whether a touched pixel is wholly inside."""
        is_whole: NDArray[np.bool_] = ~self.is_cut & (self.shares > 0.5)
        return is_whole


def _added(
    keys: NDArray[np.int64], *numbers: NDArray[np.float64]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.float64], ...]]:
    """Different keys, ascending, and what the numbers of equal ones add up to."""
    different, which = np.unique(keys, return_inverse=True)
    count = len(different)
    return different, tuple(np.bincount(which, each, count).astype(float) for each in numbers)


def _edges(polygons: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the edges of all rings begin and end, ``(n, 2)``, with the inside on the same hand."""
    import shapely

    parts = shapely.orient_polygons(shapely.get_parts(polygons), exterior_cw=True)
    points, ring = shapely.get_coordinates(shapely.get_rings(parts), return_index=True)
    is_edge = ring[:-1] == ring[1:]
    return points[:-1][is_edge], points[1:][is_edge]


def _chunks(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> Iterator[slice]:
    """Runs of edges that make some :data:`PIECES` pieces, or one edge that makes more."""
    pieces = np.cumsum(np.abs(ends - starts).sum(axis=1) + 3)
    first = 0
    while first < len(starts):
        done = pieces[first - 1] if first else 0.0
        last = max(int(np.searchsorted(pieces, done + PIECES, side="right")), first + 1)
        yield slice(first, last)
        first = last


def _pieces(
    starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges cut at grid lines: the pixels that pieces lie in, their heights and areas."""
    numbers = np.arange(len(starts))
    edges, points = [numbers, numbers], [starts, ends]
    places = [np.zeros(len(starts)), np.ones(len(starts))]
    for axis in (0, 1):
        a, b = starts[:, axis], ends[:, axis]
        low, high = np.floor(np.minimum(a, b)) + 1, np.ceil(np.maximum(a, b)) - 1
        lines = np.maximum(high - low + 1, 0).astype(np.int64)
        edge = np.repeat(numbers, lines)
        line = low[edge] + np.arange(len(edge)) - (np.cumsum(lines) - lines)[edge]
        place = (line - a[edge]) / (b[edge] - a[edge])
        point = starts[edge] + place[:, None] * (ends[edge] - starts[edge])
        point[:, axis] = line  # as it is, not as computed
        edges.append(edge)
        places.append(place)
        points.append(point)
    edge, place, point = np.concatenate(edges), np.concatenate(places), np.concatenate(points)
    order = np.lexsort((place, edge))
    edge, point = edge[order], point[order]
    is_piece = edge[:-1] == edge[1:]
    a, b = point[:-1][is_piece], point[1:][is_piece]
    middle, height = (a + b) / 2, b[:, 1] - a[:, 1]
    # Level ones have no height, but touch pixels: a coarse one that they cut must be known.
    column, row = np.floor(middle).astype(np.int64).T
    return row * ROW + column, height, height * (column + 1 - middle[:, 0])
