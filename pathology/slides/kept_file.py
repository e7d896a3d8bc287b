"""A file that stays open between reads at given places."""

import os
import weakref
from collections import deque
from pathlib import Path
from typing import Any

# Systems allow a process 1024 open files, or 256; a data set may hold thousands of slides.
MOST_OPEN = 128


class KeptFile:
    """Bytes of a file by offset.

    It is opened when first read and after unpickling, and closed with the last reference to its
    descriptor, so a read that is under way in another thread ends well. Reading at an offset moves
    nothing that processes share: a forked child may go on with its parent's descriptor. Of very
    many files those opened first are closed, and opened again when they are read again.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._descriptor: _Descriptor | None = None

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on; fewer where the file ends.

        Raises:
            OSError: the file is gone or cannot be read.
        """
        if not hasattr(os, "pread"):  # Windows, where a descriptor has but one place to read at
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(count)
        descriptor = self._descriptor
        if descriptor is None:
            # Two threads may open one each; the later one stays.
            descriptor = self._descriptor = _Descriptor(self._path)
            _make_room(self)
        return os.pread(descriptor.number, count, offset)

    def close(self) -> None:
        """Let go of the file; it is opened again when read again."""
        self._descriptor = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptor": None}


_opened: deque[weakref.ref[KeptFile]] = deque()


def _make_room(newest: KeptFile) -> None:
    """Close the file opened longest ago where there are too many."""
    _opened.append(weakref.ref(newest))
    if len(_opened) > MOST_OPEN:
        oldest = _opened.popleft()()
        if oldest is not None and oldest is not newest:
            oldest.close()


class _Descriptor:
    """A number of the system's, given back when nobody needs it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
