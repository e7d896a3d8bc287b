"""Stitch tile contributions into one slide-wide map whose sum is kept, in one pass over the tiles.

A tile spreads each of its cells evenly over the cell's own rectangle on the slide, and an output
pixel receives what falls on it::

    S += w_i  A_y C_i A_x^T        A_x[p, u] = |cell u  and  pixel p  and  slide| / |cell u|
    W += w_i  (o_y / d_y) (o_x / d_x)^T          o_x[p] = |tile i  and  pixel p  and  slide|

so ``sum(S) + cut off = sum_i w_i sum(C_i)`` for any real tile position, cell size and pixel size.
Overlapping tiles add: the weights already carry the 1/N of the pooling. ``S / (W * pixel area)`` is
the weighted mean density of the tiles that cover a pixel.

A window that was taken apart as a whole reaches over the tiles it stands for: its contributions are
placed wherever they are, and only its tiles cover. Mass that no tile covers stays on the map.

Tiles come sorted from top to bottom. Only the rows that a coming tile can still reach are held, in
float64; finished bands are appended to plain files as float32.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.errors import OutputError
from pathology.geometry import Box, Mpp, Size
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file

Floats = NDArray[np.float64]

BATCH_VALUES = 1 << 18
"""Numbers that tiles of one row may come to before they are placed: 2 MiB of float64. A tile comes
to its cells or to the pixels that it can touch, whichever are more along each axis."""


@dataclass(frozen=True)
class Axis:
    """The output pixels along x or y: pixel ``p`` covers ``[edges[p], edges[p + 1])``.

    Args:
        length: the slide's length in level-0 pixels.
        pixel: an output pixel's length in level-0 pixels; any positive real number.
        tile: the longest tile's length in level-0 pixels.
    """

    length: float
    pixel: float
    tile: float

    @cached_property
    def count(self) -> int:
        """Pixels that cover the slide; the last may reach over its edge."""
        # A division that lands a rounding error above a whole number must not buy an empty pixel.
        return max(1, math.ceil(self.length / self.pixel - 1e-6))

    @cached_property
    def reach(self) -> int:
        """Pixels that one tile can touch, wherever it lies, rounding included."""
        return math.ceil(self.tile / self.pixel) + 2

    @cached_property
    def edges(self) -> Floats:
        """Pixel edges in level-0 pixels, ended at the slide's edge: beyond it nothing is shown."""
        edges: Floats = np.arange(self.count + self.reach + 1, dtype=np.float64) * self.pixel
        np.minimum(edges, self.length, out=edges)
        edges[self.count :] = self.length
        return edges

    def first(self, start: Floats) -> NDArray[np.intp]:
        """The pixel in which a tile that begins at ``start`` begins, kept on the raster."""
        pixels = np.floor(np.clip(start, 0.0, self.length) / self.pixel)
        return np.minimum(pixels, self.count - 1).astype(np.intp)

    def overlaps(self, start: Floats, length: float, cells: int) -> tuple[Floats, Floats, Floats]:
        """How ``cells`` equal cells of tiles beginning at ``start`` fall on the pixels.

        Args:
            start: ``(n,)`` level-0 positions.
            length: the tiles' common length in level-0 pixels.
            cells: cells along this axis.

        Returns:
            ``(n, reach, cells)`` share of each cell on each pixel from :meth:`first` on,
            ``(n, cells)`` share of each cell on the slide (exactly 1 for a cell inside it), and
            ``(n, reach)`` share of each pixel under the tile.
        """
        borders = self._snapped(start[:, None] + np.arange(cells + 1) * (length / cells))
        sides = np.diff(borders)
        pixels = self.first(start)[:, None] + np.arange(self.reach + 1)
        edges = self.edges[pixels]
        high = np.minimum(borders[:, None, 1:], edges[:, 1:, None])
        low = np.maximum(borders[:, None, :-1], edges[:, :-1, None])
        shared = np.maximum(high - low, 0.0)
        inside = np.diff(np.clip(borders, 0.0, self.length)) / sides
        return shared / sides[:, None], inside, shared.sum(axis=2) / self.pixel

    def under(self, first: int, start: Floats, length: Floats) -> Floats:
        """Share of each pixel from ``first`` on under intervals of any length.

        Args:
            first: a pixel.
            start: ``(n,)`` level-0 positions.
            length: ``(n,)`` lengths in level-0 pixels.

        Returns:
            ``(n, reach)``.
        """
        borders = self._snapped(np.stack((start, start + length), axis=1))
        edges = self.edges[first : first + self.reach + 1]
        shared = np.minimum(borders[:, 1:], edges[1:]) - np.maximum(borders[:, :1], edges[:-1])
        shares: Floats = np.maximum(shared, 0.0) / self.pixel
        return shares

    def _snapped(self, borders: Floats) -> Floats:
        """Borders within 1e-9 pixels of a pixel's edge, put on it.

        Otherwise a rounding error in a position would count the neighbouring pixel as covered. The
        cells still tile the same interval, so no mass is gained or lost.
        """
        nearest = np.rint(borders / self.pixel)
        close = np.abs(borders / self.pixel - nearest) < 1e-9
        return np.where(close, nearest * self.pixel, borders)


@dataclass(frozen=True)
class Stitched:
    """A finished stitch: two rasters on disk and where every bit of the sum went.

    ``given = map_sum + rounding + cut_off`` up to float64 rounding.

    Args:
        folder: holds ``sum.f32`` and ``weight.f32``, raw float32 rows, top to bottom.
        shape: ``(height, width)`` of both.
        box: level-0 rectangle of all pixels together.
        slide_mpp: the slide's micrometres per level-0 pixel.
        given: ``sum_i w_i sum(C_i)``, in logits.
        map_sum: sum of the float32 pixels as stored, in logits.
        rounding: what storing float64 as float32 took away, in logits; may be negative.
        cut_off: what fell outside the slide, in logits.
        absolute_sum: ``sum_i |w_i| sum(|C_i|)``, in logits: the scale against which to judge
            rounding.
        tiles: how many tiles were added.
        unit: what the values are.
    """

    folder: Path
    shape: tuple[int, int]
    box: Box
    slide_mpp: Mpp
    given: float
    map_sum: float
    rounding: float
    cut_off: float
    absolute_sum: float
    tiles: int
    unit: str = "logit"

    @property
    def additive(self) -> SlideMap:
        """The additive map S in ``unit``; NaN where nothing was placed. Read from disk."""
        return self._map("sum.f32", self.unit)

    @property
    def coverage(self) -> SlideMap:
        """W: the summed weights of the tiles over a pixel, times the share they cover of it."""
        return self._map("weight.f32", "weight")

    def density(self) -> SlideMap:
        """The weighted mean density ``S / (W * pixel area)`` in ``unit`` per mm2.

        NaN where no tile with a weight lies.

        Written to ``density.f32`` on the first call, a band at a time.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.folder / "density.f32"
        if not path.exists():
            with complete_file(path) as draft, draft.open("wb") as file:
                for band in self._density_bands():
                    file.write(band.data)
        return self._map(path.name, f"{self.unit}/mm2")

    def _density_bands(self, rows: int = 64) -> Iterator[NDArray[np.float32]]:
        width, area = self.shape[1], self.additive.pixel_area_mm2
        with (self.folder / "sum.f32").open("rb") as sums, self.coverage_file() as weights:
            while len(block := sums.read(rows * width * 4)):
                total = np.frombuffer(block, np.float32).astype(np.float64)
                weight = np.frombuffer(weights.read(len(block)), np.float32).astype(np.float64)
                # Below the normal float32 range a weight has lost its digits, and with them the
                # ratio its meaning.
                seen = weight >= np.finfo(np.float32).tiny
                density = np.full(total.shape, np.nan)
                np.divide(total, weight * area, out=density, where=seen)
                yield density.astype(np.float32).reshape(-1, width)

    def coverage_file(self) -> BinaryIO:
        """The raw weights, opened for reading."""
        return (self.folder / "weight.f32").open("rb")

    def _map(self, name: str, unit: str) -> SlideMap:
        values = np.memmap(self.folder / name, np.float32, mode="r", shape=self.shape)
        return SlideMap(values, self.box, self.slide_mpp, unit)


@dataclass(frozen=True)
class RowKey:
    """What tiles of one y share that can be placed by the same matrices."""

    width: float
    height: float
    cells: tuple[int, int]


class Stitcher:
    """Takes tiles from top to bottom and gives the map they make; one class per stitcher.

    Memory is about ``3 * W_out * (band + tile_out) * 8`` bytes, whatever the slide's height.

    Args:
        slide_size: the slide in level-0 pixels.
        slide_mpp: micrometres per level-0 pixel.
        out_mpp: micrometres per pixel of the map, the same along x and y.
        tile_box_size: the largest tile that will come, in level-0 pixels.
        folder: where the rasters are written; made if missing, earlier rasters in it replaced.
        unit: what a contribution is.
        band: rows written at once.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: a size or mpp that is not positive and finite.

    Example:
        >>> stitcher = Stitcher(slide.size, slide.mpp, 8.0, Size(448, 448), folder)
        >>> for box, contributions in tiles:
        ...     stitcher.add(box, contributions, weight=1 / len(tiles))
        >>> stitcher.finish().additive.sum()
    """

    def __init__(
        self,
        slide_size: Size,
        slide_mpp: Mpp,
        out_mpp: float,
        tile_box_size: Size,
        folder: str | Path,
        *,
        unit: str = "logit",
        band: int = 64,
    ) -> None:
        numbers = (*slide_size, *slide_mpp, out_mpp, *tile_box_size, band)
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(
                "sizes, mpps and the band must be positive and finite, got "
                f"{slide_size}, {slide_mpp}, out_mpp={out_mpp}, {tile_box_size}, band={band}"
            )
        self._x = Axis(slide_size.width, out_mpp / slide_mpp.x, tile_box_size.width)
        self._y = Axis(slide_size.height, out_mpp / slide_mpp.y, tile_box_size.height)
        self._slide_mpp, self._unit, self._band = slide_mpp, unit, band
        self._folder = Path(folder)
        self._top = 0
        # Rows and columns past the raster take the empty ends of the overlap matrices.
        shape = (band + self._y.reach, self._x.count + self._x.reach)
        self._sum, self._weight = np.zeros(shape), np.zeros(shape)
        # Pixels under windows whose cover is told apart: they hold values, covered or not.
        self._windows = np.zeros(shape, dtype=np.bool_)
        self._y_held = math.nan
        self._rows: dict[RowKey, list[tuple[float, ArrayLike, float, float]]] = {}
        self._values_held = 0
        self._given = self._absolute = self._stored = self._rounding = self._cut_off = 0.0
        self._tiles = 0
        self._finished = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "density.f32").unlink(missing_ok=True)
            for name in ("sum.f32", "weight.f32"):
                # A new file: an earlier map that is still open keeps the old one.
                (self._folder / name).unlink(missing_ok=True)
                (self._folder / name).touch()
        except OSError as error:
            raise self._unwritable(error) from error

    def add(
        self,
        box: Box,
        contributions: NDArray[np.floating],
        weight: float = 1.0,
        covers: Sequence[tuple[Box, float]] | None = None,
    ) -> None:
        """Add one tile, or a window over several; call in order of ``box.y``.

        Args:
            box: the tile in level-0 pixels; may reach over any edge of the slide.
            contributions: ``(g_h, g_w)`` contribution of each cell, in logits. Not copied until
                its row is complete: do not write into it before the next row or :meth:`finish`.
            weight: the tile's weight in the slide's score, at least 0. A tile of weight 0 counts
                as not there.
            covers: what a window covers: rectangles inside ``box`` and the weight of each.
                Contributions are placed over all of ``box`` all the same, scaled by ``weight``.
                ``box`` and ``weight`` themselves when omitted.

        Raises:
            ValueError: a tile above the rows already written, larger than announced, a cover that
                is not inside it, numbers that are not finite, or :meth:`finish` was called.
            OutputError: a band cannot be written.
        """
        if self._finished:
            raise ValueError("the stitch is finished; start a new Stitcher for more tiles")
        if contributions.ndim != 2 or 0 in contributions.shape:
            raise ValueError(f"contributions are (g_h, g_w), got shape {contributions.shape}")
        for number in (weight, *(of_cover for _, of_cover in covers or ())):
            if not (number >= 0.0 and math.isfinite(number)):
                raise ValueError(
                    f"a weight is finite and at least 0, got {number} for the tile {box}"
                )
        # A hair of room, since tile sizes come out of a multiplication and a division.
        if box.width > self._x.tile * (1 + 1e-9) or box.height > self._y.tile * (1 + 1e-9):
            raise ValueError(
                f"the tile {box} is larger than the {self._x.tile} x {self._y.tile} level-0 "
                "pixels announced as tile_box_size"
            )
        if box.y != self._y_held:
            self._start_row(box.y)
        if covers is not None:
            self._cover(box, weight, covers)
        height, width = contributions.shape
        row = self._rows.setdefault(RowKey(box.width, box.height, (height, width)), [])
        row.append((box.x, contributions, weight, weight if covers is None else 0.0))
        self._tiles += 1
        self._values_held += max(height, self._y.reach) * max(width, self._x.reach)
        if self._values_held >= BATCH_VALUES:
            self._place_rows()

    def finish(self) -> Stitched:
        """Write what is held and account for it.

        Returns:
            The rasters on disk and the parts of the sum.

        Raises:
            OutputError: a band cannot be written.
            ValueError: called twice.
        """
        if self._finished:
            raise ValueError("the stitch is already finished")
        self._place_rows()
        while self._top < self._y.count:
            self._flush()
        self._finished = True
        x, y = self._x, self._y
        return Stitched(
            folder=self._folder,
            shape=(y.count, x.count),
            box=Box(0.0, 0.0, x.count * x.pixel, y.count * y.pixel),
            slide_mpp=self._slide_mpp,
            given=self._given,
            map_sum=self._stored,
            rounding=self._rounding,
            cut_off=self._cut_off,
            absolute_sum=self._absolute,
            tiles=self._tiles,
            unit=self._unit,
        )

    def _start_row(self, y: float) -> None:
        self._place_rows()
        first = int(self._y.first(np.array([y]))[0])
        if first < self._top:
            raise ValueError(
                f"the tile at y={y} begins above y={self._y.edges[self._top]:g}, where rows "
                "are already written; add tiles in order of y, or collect them in a Spool "
                "(pathology.explain.stitching.spool), which takes them in any order"
            )
        while first >= self._top + self._band:
            self._flush()
        self._y_held = y

    def _cover(self, box: Box, weight: float, covers: Sequence[tuple[Box, float]]) -> None:
        """Count what a window covers, and that its own pixels hold values."""
        hair = 1e-9 * max(abs(box.x), abs(box.y), box.width, box.height)
        for cover, _ in covers:
            if (
                min(cover.x - box.x, cover.y - box.y) < -hair
                or max(cover.right - box.right, cover.bottom - box.bottom) > hair
            ):
                raise ValueError(f"the cover {cover} is not inside the window {box}")
        # The window itself first, which is always there.
        x, y, width, height, weights = np.array(
            [(it.x, it.y, it.width, it.height, of_it) for it, of_it in ((box, weight), *covers)]
        ).T
        first_y, first_x = int(self._y.first(y[:1])[0]), int(self._x.first(x[:1])[0])
        top, tall, wide = first_y - self._top, self._y.reach, self._x.reach
        here = np.s_[top : top + tall, first_x : first_x + wide]
        under_y = self._y.under(first_y, y, height)
        under_x = self._x.under(first_x, x, width)
        if weight:
            self._windows[here] |= (under_y[0] > 0.0)[:, None] & (under_x[0] > 0.0)
        self._weight[here] += (under_y[1:] * weights[1:, None]).T @ under_x[1:]

    def _place_rows(self) -> None:
        """Add the tiles that share a y to the rows in memory."""
        rows, self._rows, self._values_held = self._rows, {}, 0
        for key, row in rows.items():
            self._place_row(key, row)

    def _place_row(self, key: RowKey, row: list[tuple[float, ArrayLike, float, float]]) -> None:
        x, weights, covering = np.array([(it[0], it[2], it[3]) for it in row], dtype=np.float64).T
        cells = np.array([tile[1] for tile in row], dtype=np.float64)
        y = np.array([self._y_held])
        with np.errstate(invalid="ignore"):
            sums = cells.sum(axis=(1, 2))
        if not np.isfinite(sums).all():
            bad = int(np.argmin(np.isfinite(sums)))
            raise ValueError(f"contributions of the tile at ({x[bad]}, {y[0]}) are not finite")
        self._given += float(sums @ weights)

        share_y, inside_y, under_y = self._y.overlaps(y, key.height, key.cells[0])
        share_x, inside_x, under_x = self._x.overlaps(x, key.width, key.cells[1])
        if inside_y.min() < 1.0 or inside_x.min() < 1.0:
            outside = 1.0 - inside_y[0][None, :, None] * inside_x[:, None, :]
            self._cut_off += float((cells * outside).sum(axis=(1, 2)) @ weights)

        patches = share_y[0] @ cells @ share_x.transpose(0, 2, 1)
        patches *= weights[:, None, None]
        # The cells are of no further use, and need no second copy for this.
        self._absolute += float(np.abs(cells, out=cells).sum(axis=(1, 2)) @ weights)
        top = int(self._y.first(y)[0]) - self._top
        left = self._x.first(x)
        tall, wide = self._y.reach, self._x.reach
        rows = self._sum[top : top + tall]
        for column, patch in zip(left.tolist(), patches, strict=True):
            rows[:, column : column + wide] += patch
        # All tiles of the row share their vertical overlap, so one outer product serves them all.
        start, stop = int(left.min()), int(left.max()) + wide
        line = np.bincount(
            (left[:, None] - start + np.arange(wide)).ravel(),
            (covering[:, None] * under_x).ravel(),
            minlength=stop - start,
        )
        self._weight[top : top + tall, start:stop] += under_y[0][:, None] * line

    def _flush(self) -> None:
        """Write the next band and move the rows below it up."""
        count = min(self._band, self._y.count - self._top)
        exact = self._sum[:count, : self._x.count]
        weight = self._weight[:count, : self._x.count]
        stored = exact.astype(np.float32)
        kept = float(stored.sum(dtype=np.float64))
        self._stored += kept
        self._rounding += float((exact - stored).sum())
        stored[(weight == 0.0) & ~self._windows[:count, : self._x.count]] = np.nan
        try:
            for name, block in (("sum.f32", stored), ("weight.f32", weight.astype(np.float32))):
                with (self._folder / name).open("ab") as file:
                    file.write(block.data)
        except OSError as error:
            raise self._unwritable(error) from error
        for ring in (self._sum, self._weight, self._windows):
            held = ring.shape[0] - self._band
            ring[:held] = ring[self._band :].copy()
            ring[held:] = 0
        self._top += self._band

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self._folder}: cannot write the stitched map: {error}")
