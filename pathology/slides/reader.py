"""PyramidSlide: the reading that all backends share, on top of one hook that fetches pixels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box, Mpp, Size, pixel_count
from pathology.slides.colour import ColourSpace, SrgbConversion
from pathology.slides.levels import Level, Scale, finest_needed, level_scale, shows_the_slide
from pathology.slides.resample import margin, mean_blocks, resample

BLOCK_PX = 2**24  # pixels of one plane held at once: 48 MiB of RGB, 64 MiB while it is RGBA
LARGEST_RATIO = 512  # above it the filter alone outgrows a block; shrink in two steps instead
ALIGNED_PX = 1e-3  # less than this off whole pixels is rounding of level-0 coordinates, not intent

Colour = tuple[int, int, int]


class PyramidSlide(ABC):
    """A slide with stored planes; a backend adds :meth:`_read_level` and what is in the file.

    Args:
        path: the slide's file, ``None`` in memory.
        slide_id: name of the slide.
        planes: width and height of every plane, finest first. Only those are read whose sides are
            level 0's by one factor, see :func:`~pathology.slides.levels.shows_the_slide`.
        tiles: width and height of the file's own tiles in every plane, ``None`` where it has none
            or does not say; none anywhere when omitted.
        mpp: micrometres per level-0 pixel.
        mpp_source: who said so.
        whole_factors: planes shrink level 0 by whole factors, see
            :func:`~pathology.slides.levels.level_scale`.
        background: colour of what was not scanned.
        bounds: the scanned part in level-0 pixels; the whole slide when omitted.
        properties: metadata.
        colour: ``"stored"``, or ``"srgb"`` to convert what is read by ``profile``.
        profile: the file's ICC profile, ``None`` where it has none.

    Raises:
        SlideOpenError: ``colour`` is ``"srgb"``, and the profile is missing or of no use.
    """

    def __init__(
        self,
        *,
        path: Path | None,
        slide_id: str,
        planes: Sequence[tuple[int, int]],
        tiles: Sequence[tuple[int, int] | None] | None = None,
        mpp: Mpp,
        mpp_source: str,
        whole_factors: bool = True,
        background: Colour = (255, 255, 255),
        bounds: Box | None = None,
        properties: Mapping[str, str] | None = None,
        colour: ColourSpace = "stored",
        profile: bytes | None = None,
    ) -> None:
        self.path = path
        self.slide_id = slide_id
        self.size = Size(*planes[0])
        self.mpp = mpp
        self.mpp_source = mpp_source
        self.background = background
        self.bounds = bounds or Box(0, 0, *self.size)
        self._properties = dict(properties or {})
        self._scales = [level_scale(self.size, *plane, whole_factors) for plane in planes]
        # What is no smaller image of the slide is listed, but never read.
        self._choice = [
            scale if shows_the_slide(self.size, *plane) else Scale(math.inf, math.inf)
            for plane, scale in zip(planes, self._scales, strict=True)
        ]
        self.levels = [
            Level(*plane, math.sqrt(scale.x * scale.y), tile)
            for plane, scale, tile in zip(
                planes, self._scales, tiles or [None] * len(planes), strict=True
            )
        ]
        self.colour: ColourSpace = colour
        self._to_srgb = SrgbConversion(profile, path) if colour == "srgb" else None
        self._closed = False

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata as in the file, under OpenSlide's names."""
        return MappingProxyType(self._properties)

    @property
    def associated(self) -> Mapping[str, NDArray[np.uint8]]:
        """Further images in the file (label, macro, thumbnail) by name; read when looked up."""
        return MappingProxyType({})

    @abstractmethod
    def stamp(self) -> str:
        """Fingerprint of the slide's content."""

    @abstractmethod
    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """``(height, width, 3)`` pixels of a plane; the rectangle lies inside of the plane."""

    def _encoded_tile(self, level: int, column: int, row: int) -> bytes | None:
        """One of the file's own tiles as a complete JPEG; ``None`` where there is no such."""
        return None

    def _origin(self, level: int, x: int, y: int) -> tuple[float, float]:
        """Where on the plane a read at ``(x, y)`` really starts, in its pixels."""
        return x, y

    def read(self, box: Box, mpp: float) -> NDArray[np.uint8]:
        """The slide under ``box`` at ``mpp``.

        Pixels are the stored ones, untouched, where the request falls on the whole pixels of a
        plane, and their exact means where it falls on whole blocks of them; else they are resampled
        from the nearest finer plane (level 0 where there is none), along x and y apart. What lies
        outside of the slide has the background's colour. Memory is bounded: a large request at a
        coarse ``mpp`` goes through the plane in blocks.

        Args:
            box: in level-0 pixels, any real numbers; may reach outside of the slide.
            mpp: micrometres per pixel of the result.

        Returns:
            RGB of ``(pixel_count(box.height, self.mpp.y, mpp),
            pixel_count(box.width, self.mpp.x, mpp), 3)``, a new array of the caller's own.

        Raises:
            SlideOpenError: the file is damaged under the box, or gone.
            ValueError: ``mpp`` is not finite or not positive, or the slide was closed.
        """
        return self.render(box, *self._pixels(box, mpp))

    def encoded(self, box: Box, mpp: float) -> bytes | None:
        """What ``read(box, mpp)`` returns as the JPEG that the file holds, without re-encoding.

        Decoded with libjpeg-turbo's defaults (Pillow, torchvision, OpenCV, simplejpeg), the pixels
        are exactly those of :meth:`read`; other decoders may differ by a few grey levels in how
        they enlarge the chroma.

        Args:
            box: in level-0 pixels.
            mpp: micrometres per pixel.

        Returns:
            A complete JPEG file; ``None`` unless ``box`` at ``mpp`` is exactly one tile of a plane
            that is stored as an intact JPEG, lies on the slide, and ``colour`` is "stored".

        Raises:
            SlideOpenError: the file cannot be read.
            ValueError: ``mpp`` is not finite or not positive, or the slide was closed.
        """
        width, height = self._pixels(box, mpp)
        self._check_open()
        level = finest_needed(self._choice, box.width / width, box.height / height)
        plane, corner = self.levels[level], self._aligned_corner(level, box, width, height)
        if self.colour != "stored" or plane.tile != (width, height) or corner is None:
            return None
        (column, left), (row, top) = divmod(corner[0], width), divmod(corner[1], height)
        on_plane = 0 <= corner[0] <= plane.width - width and 0 <= corner[1] <= plane.height - height
        if (
            left
            or top
            or not on_plane
            or any((part < 1).any() for part in self._inside(box, width, height))
        ):
            return None
        return self._encoded_tile(level, column, row)

    def _pixels(self, box: Box, mpp: float) -> tuple[int, int]:
        """Width and height of ``box`` at ``mpp``."""
        if not math.isfinite(mpp) or mpp <= 0:
            raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {mpp}")
        return pixel_count(box.width, self.mpp.x, mpp), pixel_count(box.height, self.mpp.y, mpp)

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        """The whole slide with its longer side at ``max_px`` pixels, or as it is when smaller.

        Raises:
            SlideOpenError: the file is damaged or gone.
            ValueError: ``max_px`` is below 1, or the slide was closed.
        """
        if max_px < 1:
            raise ValueError(f"max_px must be at least 1, got {max_px}")
        shrink = min(1.0, max_px / max(self.size))
        width, height = (max(1, round(side * shrink)) for side in self.size)
        return self.render(Box(0, 0, *self.size), width, height)

    def render(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """The slide under ``box`` as exactly ``width x height`` pixels, which need not be square.

        Returns:
            RGB of ``(height, width, 3)``, a new array of the caller's own.

        Raises:
            SlideOpenError: the file is damaged under the box, or gone.
            ValueError: a side below 1, or the slide was closed.
        """
        if width < 1 or height < 1:
            raise ValueError(f"an image needs sides of at least 1 px, got {width} x {height}")
        self._check_open()
        if box.intersection(Box(0, 0, *self.size)) is None:
            return np.full((height, width, 3), self.background, np.uint8)
        pixels = self._plane_pixels(box, width, height)
        if self._to_srgb is not None:
            pixels = self._to_srgb(pixels)
        pixels = self._on_background(pixels, box, width, height)
        return pixels if pixels.flags.writeable else pixels.copy()  # Pillow's are not

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"slide {self.slide_id} is closed")

    def _plane_pixels(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """The slide under ``box``, its outermost pixels repeated where the box reaches outside."""
        step_x, step_y = box.width / width, box.height / height
        level = finest_needed(self._choice, step_x, step_y)
        scale = self._scales[level]
        ratio_x, ratio_y = step_x / scale.x, step_y / scale.y
        if max(ratio_x, ratio_y) > LARGEST_RATIO:
            factor = math.ceil(max(ratio_x, ratio_y) / LARGEST_RATIO)
            return mean_blocks(self._plane_pixels(box, width * factor, height * factor), factor)
        across, down = max(1, round(ratio_x)), max(1, round(ratio_y))
        corner = self._aligned_corner(level, box, width * across, height * down)

        def block(left: int, top: int, columns: int, rows: int) -> NDArray[np.uint8]:
            if corner is not None:
                start = corner[0] + left * across, corner[1] + top * down
                pixels, _ = self._window(level, *start, columns * across, rows * down)
                return pixels if across == down == 1 else mean_blocks(pixels, across, down)
            x, y = box.x / scale.x, box.y / scale.y
            right, bottom = x + (left + columns) * ratio_x, y + (top + rows) * ratio_y
            edges = (x + left * ratio_x, y + top * ratio_y, right, bottom)
            return self._resampled(level, edges, columns, rows)

        most_columns, most_rows = _block_side(ratio_x), _block_side(ratio_y)
        if width <= most_columns and height <= most_rows:
            return block(0, 0, width, height)
        out = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, most_rows):
            for left in range(0, width, most_columns):
                part = out[top : top + most_rows, left : left + most_columns]
                part[:] = block(left, top, part.shape[1], part.shape[0])
        return out

    def _resampled(
        self, level: int, edges: tuple[float, float, float, float], width: int, height: int
    ) -> NDArray[np.uint8]:
        """What lies within left, top, right, bottom in pixels of a plane, as ``width x height``."""
        left, top, right, bottom = edges
        around_x, around_y = margin((right - left) / width), margin((bottom - top) / height)
        x, y = math.floor(left) - around_x, math.floor(top) - around_y
        pixels, (start_x, start_y) = self._window(
            level, x, y, math.ceil(right) + around_x - x, math.ceil(bottom) + around_y - y
        )
        part = (left - start_x, top - start_y, right - start_x, bottom - start_y)
        return resample(pixels, part, width, height)

    def _aligned_corner(
        self, level: int, box: Box, width: int, height: int
    ) -> tuple[int, int] | None:
        """The plane's whole pixel at which ``box`` starts, when it covers ``width x height``."""
        scale = self._scales[level]
        real = (box.x / scale.x, box.y / scale.y)
        x, y = round(real[0]), round(real[1])
        inside = min(max(x, 0), self.levels[level].width), min(max(y, 0), self.levels[level].height)
        start = self._origin(level, *inside)
        off = (
            real[0] - x,
            real[1] - y,
            box.width / scale.x - width,
            box.height / scale.y - height,
            start[0] - inside[0],
            start[1] - inside[1],
        )
        return (x, y) if max(map(abs, off)) < ALIGNED_PX else None

    def _window(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """Any rectangle of a plane, and where on the plane it really starts.

        Outside of the plane its outermost pixels are repeated: what is inside of the slide must not
        pick up the background through the filter, nor where a plane was cut before the slide ends.
        """
        plane = self.levels[level]
        left, top = min(max(x, 0), plane.width - 1), min(max(y, 0), plane.height - 1)
        right = max(min(x + width, plane.width), left + 1)
        bottom = max(min(y + height, plane.height), top + 1)
        pixels = self._read_level(level, left, top, right - left, bottom - top)
        if pixels.shape[:2] != (height, width):
            rows = np.clip(np.arange(y, y + height), top, bottom - 1) - top
            columns = np.clip(np.arange(x, x + width), left, right - 1) - left
            pixels = pixels[np.ix_(rows, columns)]
        start_x, start_y = self._origin(level, left, top)
        return pixels, (x + start_x - left, y + start_y - top)

    def _inside(
        self, box: Box, width: int, height: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Which part of each column and of each row of ``box`` lies on the slide."""
        return (
            _inside(box.x, box.width / width, width, self.size.width),
            _inside(box.y, box.height / height, height, self.size.height),
        )

    def _on_background(
        self, pixels: NDArray[np.uint8], box: Box, width: int, height: int
    ) -> NDArray[np.uint8]:
        """Give the background's colour to the part of each pixel that is outside of the slide."""
        if box.intersection(Box(0, 0, *self.size)) == box:
            return pixels
        across, down = self._inside(box, width, height)
        outer_rows, outer_columns = np.flatnonzero(down < 1), np.flatnonzero(across < 1)
        if not len(outer_rows) and not len(outer_columns):
            return pixels
        pixels = pixels if pixels.flags.writeable else pixels.copy()
        background = np.array(self.background, np.float32)
        inner_rows, all_columns = np.flatnonzero(down == 1), np.arange(width)
        # Only the rim is mixed: as floats, all of a large image would be four times its size.
        for rows, columns in ((outer_rows, all_columns), (inner_rows, outer_columns)):
            part = np.ix_(rows, columns)
            share = np.outer(down[rows], across[columns])[..., None].astype(np.float32)
            pixels[part] = np.rint(background + (pixels[part] - background) * share)
        return pixels

    def close(self) -> None:
        """Let go of the file; reading afterwards is an error. Closing twice is not."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.size
        return f"{type(self).__name__}({self.slide_id!r}, {width:g} x {height:g}, {self.mpp})"


def _inside(start: float, step: float, count: int, end: float) -> NDArray[np.float64]:
    """Which part of each of ``count`` pixels of ``step`` lies within ``[0, end)``."""
    edges = start + np.arange(count + 1) * step
    clipped = np.clip(edges, 0, end)
    # Rounding of level-0 coordinates is no partial cover.
    inside: NDArray[np.float64] = np.round(np.diff(clipped) / step, 6)
    return inside


def _block_side(ratio: float) -> int:
    """Output pixels along one side of a block, so that the block and its margin stay in bounds."""
    side = math.isqrt(BLOCK_PX)
    return max(1, int((side - 2 * margin(ratio) - 2) / ratio))
