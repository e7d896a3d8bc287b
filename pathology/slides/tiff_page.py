"""The images of a TIFF file, decoded tile by tile or strip by strip."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import SlideOpenError
from pathology.slides.jpeg_tiles import jpeg_tiles
from pathology.slides.kept_file import KeptFile
from pathology.slides.tiff_end import check_end
from pathology.slides.tile_plane import TilePlane

# Whose decoders give RGB whatever the pixels are stored as: JPEG, WebP, JPEG XL.
DECODED_TO_RGB = (6, 7, 50001, 50002, 52546)
APERIO_YCBCR = 33003  # JPEG 2000 whose stream does not tell, and some pages neither


class TiffPlane(TilePlane):
    """One image of a TIFF: the page, and where its bytes are.

    Reads may run in threads and forked children. Everything but pixels is fetched at construction,
    while the caller has the file open; ``profile`` is the ICC profile, ``None`` where it has none.

    Args:
        path: the file.
        page: the parsed page.
        file_bytes: length of the file.
        white: a tile that was left out when writing is white, as in a slide, unless the file names
            a value for it; else it is 0, as in a mask.

    Raises:
        ValueError: the page cannot be decoded, or the file ends before its pixels do.
    """

    def __init__(
        self, path: Path, page: tifffile.TiffPage, file_bytes: int, white: bool = False
    ) -> None:
        if page.imagedepth != 1:
            raise ValueError("needs flat images, got a volume")
        if page.samplesperpixel > 1 and page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
            raise ValueError("needs the colours of a pixel side by side, got separate planes")
        if page.compression not in tifffile.TIFF.DECOMPRESSORS:
            raise ValueError(f"unknown compression {page.compression}")
        if page.compression == APERIO_YCBCR or (
            page.photometric == tifffile.PHOTOMETRIC.YCBCR
            and page.compression not in DECODED_TO_RGB
        ):
            kind = getattr(page.compression, "name", page.compression)
            raise ValueError(f"needs colours in RGB, got YCbCr in {kind}; convert the file first")
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        if any(offset + count > file_bytes for offset, count in segments):
            raise ValueError(f"cut short, its pixels go on after its {file_bytes} bytes")
        self.page = page
        self._left_out = page.nodata
        if white and "GDAL_NODATA" not in page.tags:
            self._left_out = 0 if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE else 255
        profile = page.tags.get("InterColorProfile")
        self.profile = None if profile is None else bytes(profile.value)
        self._path = path
        strip = page.imagewidth, min(page.rowsperstrip, page.imagelength)
        jpeg = jpeg_tiles(page)
        self._by_tifffile = page.decode if jpeg is None else None
        self._tables = page.jpegtables
        super().__init__(
            KeptFile(path),
            (page.imagewidth, page.imagelength),
            (page.tilewidth, page.tilelength) if page.is_tiled else strip,
            page.samplesperpixel,
            page.dtype,
            page.dataoffsets,
            page.databytecounts,
            self._segment,
            jpeg,
        )

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """``(height, width, samples)`` of the stored type; the rectangle lies on the image.

        Raises:
            SlideOpenError: damaged here, or the file is gone.
        """
        try:
            return super().read(x, y, width, height)
        except Exception as error:  # every codec brings exceptions of its own
            where = f"({x}, {y}), {width} x {height} px of its {self.width} x {self.height} image"
            raise SlideOpenError(f"cannot be read: {where}: {error}", self._path) from error

    def _segment(self, data: bytes, index: int) -> NDArray[Any]:
        """One tile or strip, also one that was left out when writing."""
        decoded = None
        if data and self._jpeg is not None:
            decoded = self._jpeg.decode(data)
        elif data and self._by_tifffile is not None:
            decoded = self._by_tifffile(data, index, jpegtables=self._tables)[0]
        if decoded is None:
            shape = (self.sides[1], self.sides[0], self.page.samplesperpixel)
            return np.full(shape, self._left_out, self.page.dtype)
        return np.asarray(decoded).reshape(decoded.shape[-3:])


def open_planes(path: Path, white: bool = False) -> tuple[list[TiffPlane], str | None]:
    """The planes of a file's largest image, finest first, and its OME header where it has one.

    Further images are its label, a macro picture or a thumbnail, some before it.

    Args:
        path: the file.
        white: see :class:`TiffPlane`.

    Raises:
        SlideOpenError: no TIFF, cut short, or of a kind that cannot be decoded.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            if not tif.is_ndpi:  # which has longer offsets than a TIFF of its number
                check_end(path)  # tifffile follows a chain that is a circle for ever
            image = max(tif.series, key=_area)
            check_stack(image)
            planes = [
                TiffPlane(path, page, tif.filehandle.size, white)
                for page in (level.keyframe for level in image.levels)
                if isinstance(page, tifffile.TiffPage)
            ]
            return planes, tif.ome_metadata
    except SlideOpenError:
        raise
    except OSError as error:
        raise SlideOpenError(f"cannot be read: {error.strerror or error}", path) from error
    except Exception as error:  # a damaged header raises about anything, from KeyError to struct's
        raise SlideOpenError(f"cannot be read as TIFF: {error}", path) from error


def check_stack(image: tifffile.TiffPageSeries) -> None:
    """Refuse colours that are kept apart, each a grey image: one alone would pass for the slide.

    Raises:
        ValueError: several grey pages of one size.
    """
    finest = image.levels[0]
    if len(finest.pages) > 1 and finest.keyframe.samplesperpixel == 1:
        raise ValueError(
            f"needs one image, got {len(finest.pages)} grey ones of one size, channels or a stack; "
            "convert the file to RGB first"
        )


def _area(image: tifffile.TiffPageSeries) -> int:
    width, height = (image.levels[0].sizes.get(side, 1) for side in ("width", "height"))
    return width * height
