"""Readings: what a person says of a slide before the model's answer is shown to them."""

import csv
import datetime
import errno
import io
import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pathology.errors import OutputError, PathologyError

COLUMNS = ("time", "slide_id", "call", "confidence", "note")
LONGEST_CALL, LONGEST_NOTE = 200, 4000
"""Characters."""


@dataclass(frozen=True)
class Reading:
    """What was said of a slide.

    Args:
        time: when, in UTC, as ISO 8601 writes it.
        slide_id: of which slide.
        call: what it shows, in the reader's words.
        confidence: of that, in percent; None where it was not said.
        note: anything else.

    Raises:
        ValueError: no call, a text that is too long, or a confidence outside of 0 to 100.
    """

    time: str
    slide_id: str
    call: str
    confidence: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.call.strip():
            raise ValueError("a reading needs a call: what the slide shows")
        for name, text, most in (
            ("call", self.call, LONGEST_CALL),
            ("note", self.note, LONGEST_NOTE),
        ):
            if len(text) > most:
                raise ValueError(f"a {name} has at most {most} characters, got {len(text)}")
        if self.confidence is not None and not 0 <= self.confidence <= 100:
            raise ValueError(f"confidence is a percentage from 0 to 100, got {self.confidence}")


class Readings:
    """A reader's readings in a CSV file: each added as a row when it is made, none ever changed.

    A slide has one; where a file has more, the first counts. A file that is there is gone on with,
    and two viewers may share it: each looks at what the other wrote before it adds a row.

    Args:
        path: the file.
        readings: what it holds.
    """

    def __init__(self, path: Path, readings: list[Reading] | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._first: dict[str, Reading] = {}
        self._add(readings or [])

    @classmethod
    def open(cls, path: Path) -> Self:
        """Go on with a file, or begin one.

        Raises:
            PathologyError: there is something else in the file, or a row of it is broken.
            OutputError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _held(path, os.O_CREAT) as file:  # said now, not when the first reading is made
                content = _content(file)
                if not content:
                    _append(file, _line(COLUMNS))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        return cls(path, _parse(path, content))

    def __len__(self) -> int:
        """How many slides were read."""
        return len(self._first)

    def of(self, slide_id: str) -> Reading | None:
        """The blind reading of a slide."""
        return self._first.get(slide_id)

    def commit(
        self, slide_id: str, call: str, confidence: float | None = None, note: str = ""
    ) -> Reading:
        """Add a reading; it is on the disk when this returns.

        Raises:
            ValueError: the slide has a reading; or see :class:`Reading`.
            OutputError: it cannot be written; nothing is committed then.
            PathologyError: somebody broke the file; nothing is committed then.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        reading = Reading(now, slide_id, _text(call), confidence, _text(note))
        told = "" if confidence is None else f"{confidence:g}"
        line = _line((now, slide_id, reading.call, told, reading.note))
        try:
            with self._lock, _held(self.path) as file:
                self._add(_parse(self.path, _content(file)))
                if slide_id in self._first:
                    raise ValueError(
                        f"slide {slide_id} was read at {self._first[slide_id].time}; a reading"
                        " stays"
                    )
                _append(file, line)
                self._first[slide_id] = reading
        except FileNotFoundError as error:
            raise OutputError(f"{self.path}: is gone; put it back and commit again") from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        return reading

    def _add(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            self._first.setdefault(reading.slide_id, reading)


def _text(text: str) -> str:
    """Without space around it, its lines ended as the file's are."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _line(cells: tuple[str, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode()


@contextmanager
def _held(path: Path, flags: int = 0) -> Iterator[int]:
    """The file, open to add rows, and kept from other viewers where the system can do that."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o644)
    try:
        with suppress(ImportError, OSError):  # Windows, and some shared folders
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _content(file: int) -> bytes:
    with open(file, "rb", closefd=False) as opened:
        return opened.read()


def _append(file: int, line: bytes) -> None:
    """Add a row in a single write, so that no row is ever half of one, and wait for the disk."""
    written = os.write(file, line)
    if written != len(line):
        os.ftruncate(file, os.lseek(file, 0, os.SEEK_CUR) - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)


def _parse(path: Path, content: bytes) -> list[Reading]:
    if not content:
        return []
    try:
        text = content.decode("utf-8-sig")  # as spreadsheets save it
    except UnicodeDecodeError as error:
        raise PathologyError(f"{path}: no table of readings: it is no text") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows)
        if tuple(header) != COLUMNS:
            raise PathologyError(
                f"{path}: no table of readings: wanted the columns {', '.join(COLUMNS)}, got"
                f" {', '.join(header)}; name another file"
            )
        found = []
        for row in rows:
            if len(row) != len(COLUMNS):
                raise ValueError(f"{len(row)} cells")
            time, slide_id, call, told, note = row
            confidence = float(told) if told else None
            if confidence is not None and math.isnan(confidence):
                raise ValueError("confidence is no number")
            found.append(Reading(time, slide_id, call, confidence, note))
    except (csv.Error, ValueError) as error:
        raise PathologyError(
            f"{path}: row {rows.line_num} is no reading: {error}; mend or remove it"
        ) from error
    if not text.endswith("\n"):
        raise PathologyError(f"{path}: its last row is cut off; mend or remove it")
    return found
