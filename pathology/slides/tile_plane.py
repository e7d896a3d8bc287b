"""Rectangles of one image that a file keeps as tiles or strips."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.slides.jpeg_tiles import JpegTiles
from pathology.slides.kept_file import KeptFile
from pathology.slides.tile_cache import DECODED

Decode = Callable[[bytes, int], NDArray[Any]]


class TilePlane:
    """Tiles of one image put together; each is decoded once for a read, and kept for the next.

    Args:
        file: where the tiles are.
        size: width and height of the image.
        sides: width and height of a tile; of a strip, its width is the image's.
        samples: numbers per pixel.
        dtype: their type.
        offsets: where each tile starts in the file, row by row.
        counts: bytes of each.
        decode: turns a tile's bytes and its index into ``(height, width, samples)``.
        jpeg: how a tile becomes a JPEG file, where it is one.
    """

    def __init__(
        self,
        file: KeptFile,
        size: tuple[int, int],
        sides: tuple[int, int],
        samples: int,
        dtype: Any,
        offsets: ArrayLike,
        counts: ArrayLike,
        decode: Decode,
        jpeg: JpegTiles | None = None,
    ) -> None:
        self.width, self.height = size
        self.sides = sides
        self._file = file
        self._samples = samples
        self._dtype = dtype
        self._across = -(-self.width // sides[0])
        # A hundred thousand tiles as Python's own numbers would be 7 MB.
        self._offsets = np.asarray(offsets, np.int64)
        self._counts = np.asarray(counts, np.int64)
        self._decode = decode
        self._jpeg = jpeg
        self._key = object()

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """``(height, width, samples)`` of the stored type; the rectangle lies on the image.

        Raises:
            OSError: the file is gone.
            Exception: a tile is damaged; every codec brings exceptions of its own.
        """
        out = np.empty((height, width, self._samples), self._dtype)
        for index, left, top in self._touched(x, y, width, height):
            _paste(self._tile(index, left, top), left - x, top - y, out)
        return out

    @property
    def has_gaps(self) -> bool:
        """Some tiles were left out when writing: they have no bytes."""
        return bool((self._counts == 0).any())

    def encoded(self, column: int, row: int) -> bytes | None:
        """A complete JPEG of one whole tile, ``None`` where it is none in three colours.

        Raises:
            OSError: the file is gone.
            ValueError: it is damaged.
        """
        if self._jpeg is None or self._jpeg.colours == "Gray":
            return None
        index = row * self._across + column
        jpeg = self._jpeg.complete(self._stored(index))
        self._tile(index, column * self.sides[0], row * self.sides[1])  # is it intact?
        return jpeg

    def close(self) -> None:
        """Let go of the file; it is opened again when read again."""
        self._file.close()

    def _touched(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """Index, left and top of the tiles that a rectangle touches."""
        side_x, side_y = self.sides
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                yield row * self._across + column, column * side_x, row * side_y

    def _stored(self, index: int) -> bytes:
        return self._file.read(int(self._offsets[index]), int(self._counts[index]))

    def _tile(self, index: int, left: int, top: int) -> NDArray[Any]:
        key = self._key, index
        tile = DECODED.get(key)
        if tile is None:
            tile = self._decode(self._stored(index), index)
            # What lies beyond the image's edge need not be there.
            rows, columns = min(self.sides[1], self.height - top), self.width - left
            if tile.shape[0] < rows or tile.shape[1] < min(self.sides[0], columns):
                raise ValueError(f"tile {index} has {tile.shape[1]} x {tile.shape[0]} px only")
            DECODED.put(key, tile)
        return tile


def _paste(tile: NDArray[Any], left: int, top: int, out: NDArray[Any]) -> None:
    """Copy the part of a tile at ``(left, top)`` of ``out`` that lies on it."""
    height, width = out.shape[:2]
    x, y = max(left, 0), max(top, 0)
    right, bottom = min(left + tile.shape[1], width), min(top + tile.shape[0], height)
    out[y:bottom, x:right] = tile[y - top : bottom - top, x - left : right - left]
