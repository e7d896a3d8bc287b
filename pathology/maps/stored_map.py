"""A stored slide map at any place and level, without reading the rest of it.

What :func:`pathology.maps.ome_tiff.write_ome_tiff` wrote is read tile by tile: a window decodes the
stored tiles below it, and the ones decoded last are kept in the cache that slides use as well, so
memory does not depend on how large or how many the maps are.
"""

import zlib
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import PathologyError
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import DAMAGES, placement
from pathology.maps.pyramid import Levels
from pathology.maps.value_range import range_of
from pathology.slides.kept_file import KeptFile
from pathology.slides.tile_cache import DECODED


class StoredMap:
    """An OME-TIFF map of ours, open for reading; safe in threads.

    The file is held open between reads; of very many, those opened first are closed meanwhile. One
    that is written anew goes on being the old one as long as it is held, and is an error then.

    Args:
        path: the file.

    Raises:
        PathologyError: it cannot be read, is not one of ours, or is cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with tifffile.TiffFile(self.path) as tiff:
                placed = placement(tiff.ome_metadata)
                pages = [level.pages[0] for level in tiff.series[0].levels] if placed else []
                self._levels = [_StoredLevel(page) for page in pages]
            stamp = self.path.stat()
            if placed is not None:
                self.box = Box(*placed["box"])
                self.slide_mpp = Mpp(*placed["slide_mpp"])
                self.unit = str(placed["unit"])
                self.kind = cast("Levels", placed["levels"])
                self._check(tuple(placed["shape"]), stamp.st_size)
        except DAMAGES as error:
            raise PathologyError(f"{path}: cannot read it as an OME-TIFF: {error}") from error
        if placed is None:
            raise PathologyError(
                f"{path}: a TIFF, but without this library's slide map entry in OME-XML"
            )
        self.stamp = f"{stamp.st_ino:x}-{stamp.st_mtime_ns:x}-{stamp.st_size:x}"
        """Another one when the file was written anew."""
        self._key = str(self.path.absolute()), self.stamp
        self._file = KeptFile(self.path)

    def _check(self, shape: tuple[int, int], size: int) -> None:
        """Refuse a pyramid that is not as this library writes it, or cut short."""
        if self.kind not in ("sum", "mean"):
            raise ValueError(f"its levels hold {self.kind!r}, which is neither sum nor mean")
        if not self._levels or self.shapes[0] != shape:
            raise ValueError(f"its pixels are {self.shapes[:1]}, its placement says {shape}")
        for finer, coarser in pairwise(self.shapes):
            if coarser != tuple(-(-side // 2) for side in finer):
                raise ValueError(f"levels of {finer} and {coarser} pixels, not halves")
        if (end := max(level.end for level in self._levels)) > size:
            raise ValueError(f"cut short: {size} bytes of at least {end}; copy or make it again")

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """``(height, width)`` of each level, the finest first."""
        return [level.shape for level in self._levels]

    def pixel_mpp(self, level: int = 0) -> Mpp:
        """Micrometres per pixel of a level; each is exactly twice the one before."""
        height, width = self.shapes[0]
        scale = 2**level
        return Mpp(
            self.slide_mpp.x * self.box.width / width * scale,
            self.slide_mpp.y * self.box.height / height * scale,
        )

    def read(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """Pixels of a level.

        Args:
            level: 0 the finest.
            top: first row; may lie outside.
            left: first column; likewise.
            height: rows.
            width: columns.

        Returns:
            ``(height, width)``, the caller's own; NaN where nothing was measured and outside.

        Raises:
            PathologyError: the file is damaged or gone.
            ValueError: no such level, or no rows or columns.
        """
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1, got {height} and {width}")
        stored = self._level(level)
        window = np.full((height, width), np.nan, np.float32)
        tall, wide = stored.tile
        rows, columns = stored.shape
        bottom, right = min(top + height, rows), min(left + width, columns)
        if top >= bottom or left >= right:
            return window
        for row in range(max(top, 0) // tall, -(-bottom // tall)):
            for column in range(max(left, 0) // wide, -(-right // wide)):
                y, x = row * tall, column * wide
                up, low = max(top, y), min(bottom, y + tall)
                first, last = max(left, x), min(right, x + wide)
                tile = self._tile(level, row * stored.across + column)
                window[up - top : low - top, first - left : last - left] = tile[
                    up - y : low - y, first - x : last - x
                ]
        return window

    def blocks(self, level: int = 0) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """All pixels of a level, a stored tile at a time, past the cache: top, left and values.

        Raises:
            PathologyError: the file is damaged or gone.
            ValueError: no such level.
        """
        stored = self._level(level)
        rows, columns = stored.shape
        tall, wide = stored.tile
        for index in range(len(stored.offsets)):
            top, left = index // stored.across * tall, index % stored.across * wide
            tile = self._decoded(level, index)
            yield top, left, tile[: rows - top, : columns - left]

    def value_range(self, level: int = 0) -> tuple[float, float]:
        """Where colours of a level should saturate, and its largest ``|value|``, as stored.

        Reads the whole level, see :func:`pathology.maps.value_range.value_range`.

        Raises:
            PathologyError: the file is damaged or gone.
            ValueError: no such level.
        """
        return range_of(self._level(level).shape, self.blocks(level))

    def _level(self, level: int) -> "_StoredLevel":
        if not 0 <= level < len(self._levels):
            raise ValueError(f"{self.path} has levels 0 to {len(self._levels) - 1}, got {level}")
        return self._levels[level]

    def _tile(self, level: int, index: int) -> NDArray[np.float32]:
        """A stored tile, from the cache where it is there."""
        key = (*self._key, level, index)
        tile = DECODED.get(key)
        if tile is None:
            tile = self._decoded(level, index)
            DECODED.put(key, tile)
        return tile

    def _decoded(self, level: int, index: int) -> NDArray[np.float32]:
        stored = self._levels[level]
        try:
            tile = stored.decoded(
                self._file.read(stored.offsets[index], stored.counts[index]), index
            )
        except (*DAMAGES, zlib.error) as error:
            raise PathologyError(
                f"{self.path}: tile {index} of level {level} cannot be read ({error}); the file is"
                " damaged, or was replaced while it was open: open it again, or make it again"
            ) from error
        return tile


class _StoredLevel:
    """Where a level's tiles lie in the file, and how they are decoded.

    Args:
        page: of an open file; nothing of it is read from the file afterwards.

    Raises:
        ValueError: not tiles of float32, one per place.
    """

    def __init__(self, page: Any) -> None:
        if not page.is_tiled or page.dtype != np.float32 or len(page.shape) != 2:
            raise ValueError(f"a plane of {page.dtype}, shape {page.shape}, not tiles of float32")
        self.shape = int(page.shape[0]), int(page.shape[1])
        self.tile = int(page.tile[0]), int(page.tile[1])
        down, self.across = (-(-s // t) for s, t in zip(self.shape, self.tile, strict=True))
        self.offsets, self.counts = tuple(page.dataoffsets), tuple(page.databytecounts)
        if not len(self.offsets) == len(self.counts) == down * self.across:
            raise ValueError(f"{len(self.offsets)} tiles, not {down} x {self.across}")
        if not all(self.counts):
            raise ValueError("a tile without bytes")
        self._decode = page.decode

    @property
    def end(self) -> int:
        """Bytes that the file has at least."""
        return max(map(sum, zip(self.offsets, self.counts, strict=True)))

    def decoded(self, data: bytes, index: int) -> NDArray[np.float32]:
        """The tile that bytes hold, at its full size.

        Raises:
            ValueError: they hold less; besides what the codec raises.
        """
        values, _, _ = self._decode(data, index)
        tile: NDArray[np.float32] = np.asarray(values, np.float32).reshape(self.tile)
        return tile
