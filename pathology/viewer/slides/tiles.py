"""A slide as a pyramid of square pixels, in JPEG tiles.

Level ``k`` has pixels of ``min(mpp.x, mpp.y) * 2**k`` micrometres along both sides, whatever planes
the file holds and whatever shape its own pixels are: a page can lay all slides out in micrometres.
"""

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathology.geometry import Box, Mpp
from pathology.slides import Slide
from pathology.viewer.library.library import UnknownIdError

TILE_PX = 256
QUALITY = 90
"""Of JPEG with chroma at full size: 28 kB and 0.5 ms a tile of tissue, off by 2 grey levels.
With chroma at half, as is usual, it is 4 levels off, a third smaller, and no quicker."""
CACHE_BYTES = 64 * 2**20
VERSION = "1"
"""Of how tiles are made; pictures kept by browsers are forgotten when it changes."""


@dataclass(frozen=True)
class SlidePyramid:
    """Where the tiles of a slide lie.

    Args:
        width, height: of the slide in level-0 pixels.
        mpp: of those, in micrometres.
    """

    width: float
    height: float
    mpp: Mpp

    @classmethod
    def of(cls, slide: Slide) -> "SlidePyramid":
        """The pyramid of a slide."""
        return cls(*slide.size, slide.mpp)

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in micrometres."""
        return self.width * self.mpp.x, self.height * self.mpp.y

    @property
    def levels(self) -> int:
        """How many there are: the coarsest is a single tile."""
        return 1 + max(0, math.ceil(math.log2(max(self.size(0)) / TILE_PX)))

    def pixel_um(self, level: int) -> float:
        """The side of a pixel in micrometres."""
        return float(min(self.mpp) * 2**level)

    def size(self, level: int) -> tuple[int, int]:
        """Width and height in pixels; the last ones may reach over the slide's edge."""
        pixel = self.pixel_um(level)
        # What is whole but for rounding stays so.
        width, height = (math.ceil(round(side / pixel, 6)) for side in self.size_um)
        return max(1, width), max(1, height)

    def tile(self, level: int, x: int, y: int) -> tuple[Box, int, int]:
        """A tile's box in level-0 pixels, and its width and height in its own.

        Raises:
            UnknownIdError: there is no such tile.
        """
        if not 0 <= level < self.levels:
            raise UnknownIdError(f"no level {level}; the slide has 0 to {self.levels - 1}")
        width, height = self.size(level)
        columns, rows = -(-width // TILE_PX), -(-height // TILE_PX)
        if not (0 <= x < columns and 0 <= y < rows):
            raise UnknownIdError(f"no tile ({x}, {y}); level {level} has {columns} x {rows}")
        across, down = min(TILE_PX, width - x * TILE_PX), min(TILE_PX, height - y * TILE_PX)
        step_x, step_y = self.pixel_um(level) / self.mpp.x, self.pixel_um(level) / self.mpp.y
        box = Box(x * TILE_PX * step_x, y * TILE_PX * step_y, across * step_x, down * step_y)
        return box, across, down


def tile_jpeg(slide: Slide, level: int, x: int, y: int) -> bytes:
    """A tile of :class:`SlidePyramid` as JPEG; as it is stored, where the file has the same one.

    Raises:
        UnknownIdError: there is no such tile.
        SlideOpenError: the file cannot be read there.
    """
    pyramid = SlidePyramid.of(slide)
    box, width, height = pyramid.tile(level, x, y)
    if slide.mpp.x == slide.mpp.y:
        stored = slide.encoded(box, pyramid.pixel_um(level))
        if stored is not None:
            return stored
    return jpeg(slide.render(box, width, height))


def region_jpeg(slide: Slide, box: Box, px: int) -> bytes:
    """What lies in a box as JPEG of square pixels, its longer side ``px`` long.

    Raises:
        SlideOpenError: the file cannot be read there.
    """
    width, height = box.width * slide.mpp.x, box.height * slide.mpp.y
    longer = max(width, height)
    sides = (max(1, round(side / longer * px)) for side in (width, height))
    return jpeg(slide.render(box, *sides))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """RGB as a JPEG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY, subsampling="4:4:4")
    return out.getvalue()


class EncodedTiles:
    """Encoded tiles by key; those not asked for longest go first. Safe in threads.

    Args:
        most_bytes: what it holds at most.
    """

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        """What was put under ``key``, unless it is gone."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: bytes) -> None:
        """Keep a tile."""
        with self._lock:
            if key in self._tiles or len(tile) > self.most_bytes:
                return
            self._tiles[key] = tile
            self.bytes += len(tile)
            while self.bytes > self.most_bytes:
                self.bytes -= len(self._tiles.popitem(last=False)[1])
