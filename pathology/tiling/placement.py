"""Where tiles may lie: on a grid, near one, anywhere, or in regions that somebody drew."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pathology.errors import NoTissueError, SlideError
from pathology.geometry import Box, level0_length
from pathology.slides.levels import Level, Scale, finest_needed, level_scale
from pathology.slides.slide import Slide
from pathology.tiling.spec import TileSpec

if TYPE_CHECKING:
    from pathology.annotations.regions import Regions

# Sums over areas are rounded: a tile that is just half tissue must pass a limit of one half.
ROUNDING = 1e-6
WHOLE_PX = 1e-3  # less off whole pixels of a stored tile is rounding, as for the reader
DRAWN = 2**16  # random places tried at once
MOST_DRAWN = 2**22  # and in all: what is rarer than one in a million of places is not found

Places = tuple[NDArray[np.float64], NDArray[np.float64]]
IsKept = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Field:
    """A slide as something to put tiles on; all lengths in level-0 pixels.

    Args:
        bounds: the part to cover.
        width: of a tile.
        height: of a tile.
        step_x: one pixel of a tile.
        step_y: one pixel of a tile.
        keep_edges: tiles may reach over the right and bottom edges.
    """

    bounds: Box
    width: float
    height: float
    step_x: float
    step_y: float
    keep_edges: bool

    @classmethod
    def of(cls, slide: Slide, spec: TileSpec) -> Self:
        """``slide`` for tiles of ``spec``.

        Raises:
            NoTissueError: not a single tile fits.
        """
        step_x, step_y = (level0_length(1, spec.mpp, mpp) for mpp in slide.mpp)
        width, height = (level0_length(spec.size_px, spec.mpp, mpp) for mpp in slide.mpp)
        field = cls(slide.bounds, width, height, step_x, step_y, spec.keep_edges)
        if 0 in (field.fitting(0, step_x), field.fitting(1, step_y)):
            raise NoTissueError(
                f"smaller than one tile: {field.bounds.width:g} x {field.bounds.height:g} level-0"
                f" px, a tile is {width:g} x {height:g}; use keep_edges=True or smaller tiles",
                slide.path,
            )
        return field

    def fitting(self, axis: int, stride: float, start: float = 0.0) -> int:
        """Tiles along x (0) or y (1) that begin at ``start`` within the bounds, ``stride`` apart.

        With ``keep_edges`` as many as it takes to cover the bounds, else as many as fit.
        """
        length = (self.bounds.width, self.bounds.height)[axis] - start
        steps = (length - (self.width, self.height)[axis]) / stride
        if self.keep_edges:
            return max(0, math.ceil(steps - ROUNDING)) + 1
        return max(0, math.floor(steps + ROUNDING) + 1)

    def places(self, axis: int) -> int:
        """Whole pixels along an axis at which a tile may begin."""
        if self.keep_edges:
            length, step = ((self.bounds.width, self.step_x), (self.bounds.height, self.step_y))[
                axis
            ]
            return max(1, math.ceil(length / step - ROUNDING))
        return self.fitting(axis, (self.step_x, self.step_y)[axis])

    @property
    def steps(self) -> tuple[float, float]:
        """One pixel of a tile along x and y."""
        return self.step_x, self.step_y

    def multiples(self, axis: int, unit: float, every: int) -> NDArray[np.float64]:
        """Multiples of ``unit``, ``every`` so many, at which tiles within the bounds begin."""
        origin = (self.bounds.x, self.bounds.y)[axis]
        start = math.ceil(origin / unit - ROUNDING) * unit
        if self.keep_edges:
            start = math.floor(origin / unit + ROUNDING) * unit
        count = self.fitting(axis, every * unit, start - origin)
        starts: NDArray[Any] = start + np.arange(count) * (every * unit)
        return starts

    def at(self, column: NDArray[np.int64], row: NDArray[np.int64]) -> Places:
        """Level-0 corners of tiles that begin at these whole pixels, counted from the bounds'."""
        x: NDArray[Any] = self.bounds.x + column * self.step_x
        y: NDArray[Any] = self.bounds.y + row * self.step_y
        return x, y


def grid_places(slide: Slide, spec: TileSpec) -> Places:
    """The corners of a regular grid, by rows and then columns.

    A tile lies at its index times the stride in real level-0 pixels, so no rounding adds up along
    the slide.

    Raises:
        NoTissueError: the slide is smaller than a tile.
        SlideError: the file's own tiles were asked for, and a tile does not cover whole ones.
    """
    field = Field.of(slide, spec)
    if spec.align == "file":
        return _on_stored_tiles(slide, spec, field)
    stride_x, stride_y = (level0_length(spec.stride_px, spec.mpp, mpp) for mpp in slide.mpp)
    x = field.bounds.x + np.arange(field.fitting(0, stride_x)) * stride_x
    y = field.bounds.y + np.arange(field.fitting(1, stride_y)) * stride_y
    return np.tile(x, len(y)), np.repeat(y, len(x))


def jittered_places(slide: Slide, spec: TileSpec) -> Places:
    """The corners of a grid, each moved by up to half a stride along x and y, on whole pixels.

    Moved tiles stay within the bounds (with ``keep_edges``: begin there), so that those at the rim
    move inwards only.
    """
    field = Field.of(slide, spec)
    stride_x, stride_y = (level0_length(spec.stride_px, spec.mpp, mpp) for mpp in slide.mpp)
    columns, rows = field.fitting(0, stride_x), field.fitting(1, stride_y)
    moves = _random(slide, spec).integers(
        -(spec.stride_px // 2), spec.stride_px // 2 + 1, (2, rows * columns)
    )
    column = np.tile(np.arange(columns), rows) * spec.stride_px + moves[0]
    row = np.repeat(np.arange(rows), columns) * spec.stride_px + moves[1]
    return field.at(np.clip(column, 0, field.places(0) - 1), np.clip(row, 0, field.places(1) - 1))


def random_places(slide: Slide, spec: TileSpec, is_kept: IsKept) -> Places:
    """The corners of ``spec.count`` different tiles among those ``is_kept`` says yes to.

    Each place (whole pixel at the tiles' mpp) is as likely as any other. Fewer are returned where
    the slide has not so many, or they are rarer than one in a million.
    """
    field = Field.of(slide, spec)
    rng = _random(slide, spec)
    columns, rows = field.places(0), field.places(1)
    if columns * rows <= DRAWN:
        return _drawn(spec, field, columns, lambda: rng.permutation(columns * rows), is_kept, 1)
    return _drawn(
        spec, field, columns, lambda: rng.integers(0, columns * rows, DRAWN), is_kept, MOST_DRAWN
    )


def annotated_places(
    slide: Slide, spec: TileSpec, regions: "Regions", name: str, is_kept: IsKept
) -> Places:
    """The corners of ``spec.count`` different tiles centred in regions of the class ``name``.

    Centres are uniform over the area of the class, to the nearest whole pixel; places where the
    tile would reach out of the bounds, and those ``is_kept`` says no to, are left out. Fewer are
    returned as for :func:`random_places`, none where the slide has nothing of the class.
    """
    field = Field.of(slide, spec)
    if not regions.covered(np.array([[0, 0, *slide.size]], float), [name]).any():
        return np.empty(0), np.empty(0)
    rng = _random(slide, spec, name)
    columns, rows = field.places(0), field.places(1)
    count = min(DRAWN, 8 * (spec.count or 0) + 64)  # points in polygons cost more than pixels

    def draw() -> NDArray[np.int64]:
        points = regions.points(name, count, rng)
        column = np.rint((points[:, 0] - field.width / 2 - field.bounds.x) / field.step_x)
        row = np.rint((points[:, 1] - field.height / 2 - field.bounds.y) / field.step_y)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        flat: NDArray[np.int64] = (row[inside] * columns + column[inside]).astype(np.int64)
        return flat

    return _drawn(spec, field, columns, draw, is_kept, MOST_DRAWN // DRAWN * count)


def _drawn(
    spec: TileSpec,
    field: Field,
    columns: int,
    draw: Callable[[], NDArray[np.int64]],
    is_kept: IsKept,
    most: int,
) -> Places:
    """The first ``spec.count`` different places drawn that are kept, by rows and then columns."""
    wanted, tried = spec.count or 0, 0
    found = np.empty(0, np.int64)
    while len(found) < wanted and tried < most:
        flat = draw()
        tried += max(1, len(flat))
        flat = flat[is_kept(*field.at(flat % columns, flat // columns))]
        found = np.concatenate([found, flat])
        # The first of each place, in the order drawn: chances stay even.
        found = found[np.sort(np.unique(found, return_index=True)[1])]
    found = np.sort(found[:wanted])
    return field.at(found % columns, found // columns)


def _random(slide: Slide, spec: TileSpec, name: str = "") -> np.random.Generator:
    """Random numbers that depend on the seed, the slide's content and the class alone."""
    digest = hashlib.sha256(f"{slide.stamp()} {name}".encode()).digest()
    return np.random.default_rng([spec.seed, int.from_bytes(digest[:16], "big")])


def _on_stored_tiles(slide: Slide, spec: TileSpec, field: Field) -> Places:
    """The corners of a grid on the stored tiles of the plane that will be read.

    It begins with the first that is within the bounds, with ``keep_edges`` with the one that they
    begin in.
    """
    scales = [_scale(slide, level) for level in slide.levels]
    index = finest_needed(scales, field.step_x, field.step_y)
    level, scale = slide.levels[index], scales[index]
    if level.tile is None:
        raise SlideError(
            f"tiles cannot lie on the file's own: plane {index} has none; use align='bounds'",
            slide.path,
        )
    covered = [spec.size_px * step / one for step, one in zip(field.steps, scale, strict=True)]
    strides = [spec.stride_px * step / one for step, one in zip(field.steps, scale, strict=True)]
    for what, pixels, sides in (
        ("size_px", spec.size_px, covered),
        ("size_px - overlap_px", spec.stride_px, strides),
    ):
        for stored_px, side in zip(level.tile, sides, strict=True):
            if abs(side - max(1, round(side / stored_px)) * stored_px) >= WHOLE_PX:
                raise SlideError(
                    f"tiles cannot lie on the file's own: {what} {pixels} at {spec.mpp:g} um/px"
                    f" covers {sides[0]:.6g} x {sides[1]:.6g} pixels of plane {index}, whose tiles"
                    f" have {level.tile[0]} x {level.tile[1]}; {_what_fits(slide, level, scale)}",
                    slide.path,
                )
    # From the stored tiles, not from mpp: what a scale is rounded by must not add up.
    x, y = (
        field.multiples(axis, stored_px * scale[axis], round(strides[axis] / stored_px))
        for axis, stored_px in enumerate(level.tile)
    )
    if 0 in (len(x), len(y)):
        raise NoTissueError(
            f"no whole tile on the file's own lies within {field.bounds}; use keep_edges=True,"
            " smaller tiles or align='bounds'",
            slide.path,
        )
    return np.tile(x, len(y)), np.repeat(y, len(x))


def _what_fits(slide: Slide, level: Level, scale: Scale) -> str:
    """Advice on a plane's own tiles."""
    x, y = scale.x * slide.mpp.x, scale.y * slide.mpp.y
    stored_px = math.lcm(*level.tile or (1,))
    if abs(x / y - 1) * stored_px >= WHOLE_PX:
        return f"no size fits, its pixels are {x:.6g} x {y:.6g} um; use align='bounds'"
    return f"ask for a multiple of {stored_px} at mpp {x:.10g}, or use align='bounds'"


def _scale(slide: Slide, level: Level) -> Scale:
    """Level-0 pixels per pixel of a plane, along x and y."""
    is_whole = level.downsample == round(level.downsample)
    return level_scale(slide.size, level.width, level.height, is_whole)
