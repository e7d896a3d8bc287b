"""The tiles decoded last, of all slides that a process has open."""

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from numpy.typing import NDArray

CACHE_BYTES = 64 * 2**20  # two rows of tiles of a slide 40,000 px wide; neighbours share most tiles


class TileCache:
    """Arrays by key; the one not used for longest goes first. Safe in threads and forked children.

    Args:
        most_bytes: what it holds at most, but for a single array that is larger.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.clear()
        if hasattr(os, "register_at_fork"):
            # Another thread of the parent may hold the lock at that moment, and never let go of it.
            os.register_at_fork(after_in_child=self.clear)

    def clear(self) -> None:
        """Forget everything."""
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """What was put under ``key``, unless it is gone."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: NDArray[Any]) -> None:
        """Keep an array, which nobody may change afterwards."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self.bytes += tile.nbytes
            # The newest stays even when it alone is larger: an image in a single strip.
            while self.bytes > self.most_bytes and len(self._tiles) > 1:
                self.bytes -= self._tiles.popitem(last=False)[1].nbytes


DECODED = TileCache(CACHE_BYTES)
"""The one of this process: memory stays bounded however many slides are open."""
