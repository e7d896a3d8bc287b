"""Mask images: TIFF and PNG files that are stretched over a slide."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.rasters import Raster
from pathology.annotations.regions import Source
from pathology.errors import AnnotationError, SlideOpenError
from pathology.geometry import Box
from pathology.slides.levels import finest_needed, level_scale, shows_the_slide

MASK_MPP = 4.0  # masks are drawn by hand; finer planes cost time and add nothing
MASK_TYPES = (np.bool_, np.uint8, np.uint16, np.uint32)
JPEG = (6, 7)  # TIFF's compressions that do not keep values


def open_mask(path: Path, source: Source, has_colours: bool) -> Raster:
    """A mask over the whole slide, of any size, with or without further planes.

    One channel of indices; or three, of which either all are a colour, or the first holds indices
    and the others zero or the same (PANDA). A fourth says what is transparent; that is zero.

    Args:
        path: TIFF, read band by band on the plane nearest to 4 um per pixel from below; or PNG.
        source: the slide.
        has_colours: three channels are colours.

    Raises:
        AnnotationError: channels or type are none of these, the shape is another than the slide's,
            or the compression does not keep values; when rows are read, indices that are colours.
        SlideOpenError: the file cannot be read.
    """
    kind = PngMask if path.suffix.lower() == ".png" else TiffMask
    return kind(path, source, has_colours)


class _Mask:
    """What both kinds of file share: channels to values."""

    def __init__(self, path: Path, source: Source, has_colours: bool) -> None:
        self.what = str(path)
        self.box = Box(0, 0, *source.size)
        self.is_colour = has_colours

    def _check(self, width: int, height: int, samples: int, dtype: Any, source: Source) -> None:
        if (
            samples not in (1, 3, 4)
            or dtype not in MASK_TYPES
            or (samples > 1 and dtype != np.uint8)
        ):
            raise AnnotationError(
                f"{self.what}: a mask needs one channel of indices (or 8-bit colours), got"
                f" {samples} x {dtype}"
            )
        self.is_colour &= samples > 1
        # Sides are rounded to whole pixels of the mask. Those rounded to whole tiles, as in some
        # software, would be stretched with what was added to them: areas would move by a tile.
        if not shows_the_slide(source.size, width, height):
            raise AnnotationError(
                f"{self.what}: a mask of {width} x {height} px does not have the shape of slide"
                f" {source.slide_id}, {source.size.width:g} x {source.size.height:g}; cut off what"
                " was added at its edges, or look for the mask of this slide"
            )

    def _as_values(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """``(h, w)`` of ``(h, w, samples)``."""
        if pixels.shape[2] == 1:
            return pixels[..., 0]
        if self.is_colour:
            red, green, blue = (pixels[..., i].astype(np.uint32) for i in range(3))
            colours: NDArray[Any] = red << 16 | green << 8 | blue
            return colours if pixels.shape[2] == 3 else np.where(pixels[..., 3] > 0, colours, 0)
        index, others = pixels[..., 0], pixels[..., 1:3]
        if others.any() and (others != index[..., None]).any():
            raise AnnotationError(
                f"{self.what}: a mask of colours, and the classes list none; write their values as"
                ' "#rrggbb"'
            )
        return index


class TiffMask(_Mask):
    """A TIFF of which some rows are decoded at a time."""

    def __init__(self, path: Path, source: Source, has_colours: bool) -> None:
        from pathology.slides.tiff_page import open_planes

        super().__init__(path, source, has_colours)
        try:
            planes, _ = open_planes(path)
        except SlideOpenError as error:
            raise SlideOpenError(f"annotation of {source.slide_id}: {error}") from error
        first = planes[0]
        page = first.page
        self._check(first.width, first.height, page.samplesperpixel, page.dtype, source)
        if page.compression in JPEG:
            raise AnnotationError(
                f"{path}: a mask in JPEG compression, which does not keep values; save it with"
                " deflate or LZW"
            )
        # Further planes may be filled up to whole tiles although the first is not.
        planes = [p for p in planes if shows_the_slide(source.size, p.width, p.height)]
        scales = [level_scale(source.size, p.width, p.height, False) for p in planes]
        level = finest_needed(scales, MASK_MPP / source.mpp.x, MASK_MPP / source.mpp.y)
        self._plane = planes[level]
        self.shape = self._plane.height, self._plane.width

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        return self._as_values(self._plane.read(0, top, self._plane.width, bottom - top))


class PngMask(_Mask):
    """A PNG, decoded as a whole; of one with a palette the values are its indices."""

    def __init__(self, path: Path, source: Source, has_colours: bool) -> None:
        from PIL import Image

        super().__init__(path, source, has_colours)
        try:
            with warnings.catch_warnings():
                # It warns at half of the size that it refuses.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path, formats=["PNG"]) as image:
                    pixels = np.asarray(image)
        except Image.DecompressionBombError as error:
            raise AnnotationError(
                f"{path}: a PNG too large to be decoded at once ({error}); save it as a tiled TIFF"
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            raise SlideOpenError(
                f"annotation of {source.slide_id}: cannot be read: {what}", path
            ) from error
        if pixels.dtype == np.int32:  # what Pillow makes of 16 bits
            pixels = pixels.astype(np.uint32)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        height, width, samples = pixels.shape
        self._check(width, height, samples, pixels.dtype, source)
        self.shape = height, width
        self._pixels = pixels

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        return self._as_values(self._pixels[top:bottom])
