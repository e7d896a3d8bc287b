"""Writing a tiled pyramidal TIFF band by band, in memory that does not grow with its height."""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.outputs import SOFTWARE

TILE = 256
"""Side of a tile in pixels."""

_BIG = 3 * 2**30
"""Bytes of tiles from which on offsets might not fit a classic TIFF."""


class PyramidWriter:
    """Collects an image from top to bottom and then writes it with all its levels.

    Tiles are compressed as soon as their rows are complete and wait in a nameless file, which the
    system removes even when the process is killed. Each level halves the one before and drops an
    odd last row or column.

    Args:
        folder: where the waiting tiles lie.
        size_px: (width, height) of level 0.
        mpp: micrometres per pixel of level 0.
        channels: 3 for colour, which is JPEG-compressed and averaged from level to level; 1 for
            labels, which are deflated and picked from every other pixel.
        quality: JPEG quality, 1 to 100; of no effect on labels.
    """

    def __init__(
        self, folder: Path, size_px: tuple[int, int], mpp: float, channels: int, quality: int = 85
    ) -> None:
        self._mpp = mpp
        self._channels = channels
        self._quality = quality
        self._sizes = [size_px]
        while max(self._sizes[-1]) > 512 and min(self._sizes[-1]) > 1:
            width, height = self._sizes[-1]
            self._sizes.append((width // 2, height // 2))
        self._waiting: list[list[NDArray[np.uint8]]] = [[] for _ in self._sizes]
        self._odd: list[NDArray[np.uint8] | None] = [None] * len(self._sizes)
        self._lengths: list[list[int]] = [[] for _ in self._sizes]
        self._files: list[IO[bytes]] = []
        try:
            for _ in self._sizes:
                self._files.append(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 -- closed by close()
        except OSError:
            self.close()
            raise

    def __enter__(self) -> "PyramidWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the waiting tiles."""
        for file in self._files:
            file.close()

    def add(self, band: NDArray[np.uint8]) -> None:
        """Adds the next rows of level 0, shape (h, w, 3) or (h, w); any number of rows."""
        self._add(0, band)

    def write(self, path: Path) -> None:
        """Writes the file once every row has been added.

        Raises:
            OSError: the file cannot be written.
            ValueError: rows are missing.
        """
        for level in range(len(self._sizes)):
            if self._waiting[level]:
                self._flush(level, np.concatenate(self._waiting[level]))
                self._waiting[level] = []
        total = sum(sum(lengths) for lengths in self._lengths)
        with tifffile.TiffWriter(path, bigtiff=total > _BIG) as tiff:
            for level, (width, height) in enumerate(self._sizes):
                if len(self._lengths[level]) != -(-width // TILE) * -(-height // TILE):
                    raise ValueError(f"level {level} has {len(self._lengths[level])} tiles only")
                per_cm = 1e4 / (self._mpp * 2**level)
                colour = self._channels == 3
                tiff.write(
                    self._tiles(level),
                    shape=(height, width, 3) if colour else (height, width),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="rgb" if colour else "minisblack",
                    compression="jpeg" if colour else "adobe_deflate",
                    subsampling=(1, 1) if colour else None,
                    subfiletype=1 if level else 0,
                    resolution=(per_cm, per_cm),
                    resolutionunit="CENTIMETER",
                    metadata=None,
                    software=SOFTWARE,  # which tells how levels were made
                )

    def _tiles(self, level: int) -> Iterator[bytes]:
        file = self._files[level]
        file.seek(0)
        for length in self._lengths[level]:
            yield file.read(length)

    def _add(self, level: int, band: NDArray[np.uint8]) -> None:
        """Takes rows of one level and hands their half on to the next."""
        waiting = self._waiting[level]
        waiting.append(band)
        if sum(len(part) for part in waiting) >= TILE:
            rows = np.concatenate(waiting)
            whole = len(rows) // TILE * TILE
            for top in range(0, whole, TILE):
                self._flush(level, rows[top : top + TILE])
            self._waiting[level] = [rows[whole:].copy()] if whole < len(rows) else []
        if level + 1 < len(self._sizes):
            odd = self._odd[level]
            rows = band if odd is None else np.concatenate([odd, band])
            even = len(rows) // 2 * 2
            self._odd[level] = rows[even:].copy() if even < len(rows) else None
            if even:
                self._add(level + 1, self._half(rows[:even]))

    def _half(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rows = rows[:, : rows.shape[1] // 2 * 2]
        if self._channels == 1:
            return np.ascontiguousarray(rows[::2, ::2])
        total = rows[::2, ::2].astype(np.uint16)
        for part in (rows[1::2, ::2], rows[::2, 1::2], rows[1::2, 1::2]):
            total += part
        return ((total + 2) >> 2).astype(np.uint8)

    def _flush(self, level: int, rows: NDArray[np.uint8]) -> None:
        """Compresses one row of tiles; the last row and column are filled up by their edge."""
        width = rows.shape[1]
        spare = ((0, TILE - len(rows)), (0, -width % TILE), (0, 0))[: rows.ndim]
        rows = np.pad(rows, spare, mode="edge")
        for left in range(0, width, TILE):
            tile = np.ascontiguousarray(rows[:, left : left + TILE])
            data = (
                imagecodecs.jpeg8_encode(
                    tile,
                    level=self._quality,
                    colorspace="rgb",
                    outcolorspace="ycbcr",
                    subsampling="444",
                )
                if self._channels == 3
                else zlib.compress(tile.tobytes(), 6)
            )
            self._files[level].write(data)
            self._lengths[level].append(len(data))
