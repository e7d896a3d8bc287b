"""A file that stays open between reads at given places."""

import os
from pathlib import Path
from typing import Any


class KeptFile:
    """Bytes of a file by offset.

    It is opened when first read and after unpickling, and closed with the last reference to its
    descriptor, so a read that is under way in another thread ends well. Reading at an offset moves
    nothing that processes share: a forked child may go on with its parent's descriptor.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
        return os.pread(descriptor.number, count, offset)

    def close(self) -> None:
        """Let go of the file; it is opened again when read again."""
        self._descriptor = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptor": None}


class _Descriptor:
    """A number of the system's, given back when nobody needs it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
