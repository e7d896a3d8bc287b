"""Slides and explanations of a viewer's list, each under an opaque id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathology.explain.results.stored import StoredExplanation

RECORD = "explanation.json"


def file_stamp(path: Path) -> str | None:
    """Another one when the file was written anew; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


@dataclass(eq=False)
class SlideEntry:
    """A slide of the list.

    Args:
        id: what requests name it by.
        name: its ``slide_id``.
        path: its file.
        labels: further columns of the manifest.
        mpp: what it is opened with; None to ask the file.
        problem: why it cannot be shown, as far as that is known.
        root: folder that its file must lie in; anywhere when None.
        seen: its file's stamp when it was opened first.
    """

    id: str
    name: str
    path: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None
    problem: str | None = None
    root: Path | None = None
    seen: str | None = None

    @property
    def is_anew(self) -> bool:
        """Whether another file was put in the place of the one that was opened."""
        now = None if self.seen is None else file_stamp(self.path)
        return now is not None and now != self.seen


@dataclass(frozen=True)
class RunResults:
    """What one run said: a folder ``SLIDE/TARGET``.

    Args:
        id: what requests name it by.
        name: the folder's name, and its parents' where two have the same.
        folder: where it is.
    """

    id: str
    name: str
    folder: Path


@dataclass(frozen=True, eq=False)
class EvidenceEntry:
    """An explanation of the list, read when it is first looked at."""

    id: str
    run: RunResults
    slide: SlideEntry
    folder: Path

    @property
    def explanation(self) -> "StoredExplanation":
        """What is in the folder, as it was when it was read.

        Raises:
            PathologyError: it is damaged.
        """
        return self._read[1]

    @cached_property
    def _read(self) -> "tuple[str | None, StoredExplanation]":
        from pathology.explain.results.stored import load_explanation

        return file_stamp(self.folder / RECORD), load_explanation(self.folder)

    @property
    def is_anew(self) -> bool:
        """Whether the slide was explained again since this was read."""
        now = file_stamp(self.folder / RECORD) if "_read" in self.__dict__ else None
        return now is not None and now != self._read[0]

    def forget(self) -> None:
        """Read it again when it is looked at next."""
        self.__dict__.pop("_read", None)

    @property
    def target(self) -> str:
        """What is explained."""
        return self.explanation.target
