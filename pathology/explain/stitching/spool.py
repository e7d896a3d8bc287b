"""Contributions that come in any order, kept on disk until they can be stitched from top to bottom.

A stitcher takes tiles in order of y. Where several devices share a slide, or tiles are taken apart
in order of what they weigh, they come otherwise: a spool appends each to one file as it comes, and
hands all of them to a stitcher in an order that follows from the tiles alone. So a map is the same,
byte for byte, whichever device was quicker. Of each tile only an entry of an index is ever held,
some hundred bytes, and that only while stitching.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pathology.errors import OutputError
from pathology.explain.stitching.stitch import Stitcher
from pathology.geometry import Box

Covers = Sequence[tuple[Box, float]]

PLACE = ("y", "x", "height", "width")
ORDER = (*PLACE, "rows", "columns", "weight", "bytes_each", "covers")
ENTRY = np.dtype(
    [(name, np.float64) for name in (*PLACE, "weight")]
    + [(name, np.int64) for name in ("rows", "columns", "bytes_each", "covers", "offset")]
)
"""One tile in the index; ``covers`` is -1 for none told, ``bytes_each`` the size of a number."""
COVER_BYTES = 5 * 8


class Spool:
    """Takes tiles in any order, from any thread, and stitches them as often as asked.

    Args:
        folder: where the two scratch files lie; made if missing.

    Raises:
        OutputError: the folder cannot be written.

    Example:
        >>> with Spool(scratch) as spool:
        ...     for box, contributions, weight in as_they_come:
        ...         spool.add(box, contributions, weight)
        ...     spool.stitch(stitcher)
        >>> stitched = stitcher.finish()
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._count = self._size = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._values = (self._folder / "contributions.raw").open("wb")
            self._index = (self._folder / "index.raw").open("wb")
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many tiles were added."""
        return self._count

    def add(
        self,
        box: Box,
        contributions: NDArray[np.floating],
        weight: float = 1.0,
        covers: Covers | None = None,
    ) -> None:
        """Append one tile; the arguments are those of :meth:`Stitcher.add`, which judges them.

        Args:
            box: the tile in level-0 pixels.
            contributions: ``(g_h, g_w)``, kept as float32 or float64; written at once.
            weight: the tile's weight in the slide's score.
            covers: what a window covers; ``box`` itself when omitted.

        Raises:
            OutputError: the disk is full.
            ValueError: contributions of another shape or type; the spool is closed.
        """
        if contributions.ndim != 2 or contributions.dtype not in (np.float32, np.float64):
            raise ValueError(
                "contributions are (g_h, g_w) of float32 or float64, got shape"
                f" {contributions.shape} of {contributions.dtype}"
            )
        rectangles = [(it.x, it.y, it.width, it.height, of_it) for it, of_it in covers or ()]
        payload = contributions.tobytes() + np.array(rectangles, np.float64).tobytes()
        entry = np.zeros(1, ENTRY)
        for name in PLACE:
            entry[name] = getattr(box, name)
        entry["weight"], entry["bytes_each"] = weight, contributions.itemsize
        entry["rows"], entry["columns"] = contributions.shape
        entry["covers"] = -1 if covers is None else len(covers)
        with self._lock:
            entry["offset"] = self._size
            try:
                self._values.write(payload)
                self._index.write(entry.tobytes())
            except OSError as error:
                raise self._unwritable(error) from error
            self._size += len(payload)
            self._count += 1

    def stitch(self, stitcher: Stitcher) -> None:
        """Hand every tile to ``stitcher`` from top to bottom, leaving its end to the caller.

        The order is that of y, then x, then everything else that tells two tiles apart.

        Raises:
            OutputError: the scratch files, or a band of the map, cannot be written.
            ValueError: a tile that the stitcher refuses; the spool is closed.
        """
        with self._lock:
            try:
                for file in (self._values, self._index):
                    file.flush()
                entries = np.fromfile(self._index.name, ENTRY)
                # Plain reads: the pages of a mapped file would count as ours.
                with Path(self._values.name).open("rb") as values:
                    for entry, payload in _in_order(entries, values):
                        stitcher.add(*_tile(entry, payload))
            except OSError as error:
                raise self._unwritable(error) from error

    def close(self) -> None:
        """Remove the scratch files."""
        for file in (self._values, self._index):
            with contextlib.suppress(OSError):  # what a full disk has not taken; of no use now
                file.close()
            Path(file.name).unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self._folder}: cannot keep contributions for the map: {error}")


def _in_order(
    entries: NDArray[np.void], values: BinaryIO
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Entries with the bytes they point to, from top to bottom; equal entries by their bytes."""
    entries = entries[np.lexsort([entries[name] for name in reversed(ORDER)])]
    keys, names = entries[list(ORDER)], entries.dtype.names or ()
    ends = [*(np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist(), len(entries)]
    for first, end in itertools.pairwise([0, *ends]):
        equal = [dict(zip(names, entry, strict=True)) for entry in entries[first:end].tolist()]
        payloads = []
        for entry in equal:
            values.seek(entry["offset"])
            numbers = entry["rows"] * entry["columns"] * entry["bytes_each"]
            payloads.append(values.read(numbers + max(0, entry["covers"]) * COVER_BYTES))
        # What differs between equal entries is where they lie, so any of them goes with any bytes.
        yield from zip(equal, sorted(payloads), strict=True)


def _tile(
    entry: dict[str, Any], payload: bytes
) -> tuple[Box, NDArray[np.floating], float, Covers | None]:
    """What :meth:`Spool.add` was given."""
    shape, number = (entry["rows"], entry["columns"]), f"f{entry['bytes_each']}"
    contributions = np.frombuffer(payload, number, shape[0] * shape[1]).reshape(shape)
    covers = None
    if entry["covers"] >= 0:
        rows = np.frombuffer(payload[contributions.nbytes :], np.float64).reshape(-1, 5).tolist()
        covers = [(Box(*row[:4]), row[4]) for row in rows]
    box = Box(*(entry[name] for name in ("x", "y", "width", "height")))
    return box, contributions, entry["weight"], covers
