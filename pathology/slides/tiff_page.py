"""Rectangles of one image of a TIFF file, decoded tile by tile or strip by strip."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import SlideOpenError

CACHE_BYTES = 64 * 2**20  # decoded tiles and strips; neighbouring reads share most of them


class TiffPlane:
    """One image of a TIFF: the page, and where its bytes are.

    The file is opened for each read and only then, so reads may run in threads and forked children.
    Everything else is fetched at construction, while the caller has the file open.

    Args:
        path: the file.
        page: the parsed page.
        file_bytes: length of the file.

    Raises:
        ValueError: the page cannot be decoded, or the file ends before its pixels do.
    """

    def __init__(self, path: Path, page: tifffile.TiffPage, file_bytes: int) -> None:
        if page.imagedepth != 1:
            raise ValueError("needs flat images, got a volume")
        if page.samplesperpixel > 1 and page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
            raise ValueError("needs the colours of a pixel side by side, got separate planes")
        if page.compression not in tifffile.TIFF.DECOMPRESSORS:
            raise ValueError(f"unknown compression {page.compression}")
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        if any(offset + count > file_bytes for offset, count in segments):
            raise ValueError(f"cut short, its pixels go on after its {file_bytes} bytes")
        self.page = page
        self.width = page.imagewidth
        self.height = page.imagelength
        self._path = path
        self._decode = page.decode
        self._tables = page.jpegtables
        self._cache = _Cache()

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """``(height, width, samples)`` of the stored type; the rectangle lies on the image.

        Raises:
            SlideOpenError: damaged here, or the file is gone.
        """
        out = np.empty((height, width, self.page.samplesperpixel), self.page.dtype)
        try:
            with self._path.open("rb") as file:
                for index, left, top in self._touched(x, y, width, height):
                    segment = self._cache.get(index)
                    if segment is None:
                        file.seek(self.page.dataoffsets[index])
                        data = file.read(self.page.databytecounts[index])
                        segment = self._segment(data, index)
                        self._cache.put(index, segment)
                    _paste(segment, left - x, top - y, out)
        except Exception as error:  # every codec brings exceptions of its own
            where = f"({x}, {y}), {width} x {height} px of its {self.width} x {self.height} image"
            raise SlideOpenError(f"cannot be read: {where}: {error}", self._path) from error
        return out

    @property
    def _sides(self) -> tuple[int, int]:
        """Width and height of a tile or strip."""
        if self.page.is_tiled:
            return self.page.tilewidth, self.page.tilelength
        return self.width, min(self.page.rowsperstrip, self.height)

    def _touched(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """Index, left and top of the tiles or strips that a rectangle touches."""
        side_x, side_y = self._sides
        across = -(-self.width // side_x)
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                yield row * across + column, column * side_x, row * side_y

    def _segment(self, data: bytes, index: int) -> NDArray[Any]:
        """One tile or strip; one that was left out when writing has the file's fill value."""
        decoded = self._decode(data, index, jpegtables=self._tables)[0] if data else None
        if decoded is None:
            side_x, side_y = self._sides
            shape = (side_y, side_x, self.page.samplesperpixel)
            return np.full(shape, self.page.nodata, self.page.dtype)
        return np.asarray(decoded).reshape(decoded.shape[-3:])


class _Cache:
    """The tiles and strips decoded last."""

    def __init__(self) -> None:
        self._segments: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, index: int) -> NDArray[Any] | None:
        with self._lock:
            segment = self._segments.get(index)
            if segment is not None:
                self._segments.move_to_end(index)
            return segment

    def put(self, index: int, segment: NDArray[Any]) -> None:
        with self._lock:
            if index in self._segments:
                return
            self._segments[index] = segment
            self._bytes += segment.nbytes
            # The newest stays even when it alone is larger: an image in a single strip.
            while self._bytes > CACHE_BYTES and len(self._segments) > 1:
                self._bytes -= self._segments.popitem(last=False)[1].nbytes


def open_planes(path: Path) -> tuple[list[TiffPlane], str | None]:
    """The planes of a file's first image, finest first, and its OME header where it has one.

    Raises:
        SlideOpenError: no TIFF, cut short, or of a kind that cannot be decoded.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            pages = [level.keyframe for level in tif.series[0].levels]
            planes = [
                TiffPlane(path, page, tif.filehandle.size)
                for page in pages
                if isinstance(page, tifffile.TiffPage)
            ]
            return planes, tif.ome_metadata
    except OSError as error:
        raise SlideOpenError(f"cannot be read: {error.strerror or error}", path) from error
    except Exception as error:  # a damaged header raises about anything, from KeyError to struct's
        raise SlideOpenError(f"cannot be read as TIFF: {error}", path) from error


def _paste(segment: NDArray[Any], left: int, top: int, out: NDArray[Any]) -> None:
    """Copy the part of a segment at ``(left, top)`` of ``out`` that lies on it."""
    height, width = out.shape[:2]
    x, y = max(left, 0), max(top, 0)
    right, bottom = min(left + segment.shape[1], width), min(top + segment.shape[0], height)
    out[y:bottom, x:right] = segment[y - top : bottom - top, x - left : right - left]
