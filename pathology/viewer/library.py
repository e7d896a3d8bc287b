"""What a viewer can show: slides, and what runs said of them, each under an opaque id.

Ids are what requests name things by. They say nothing of where a file is, and stay the same when
the viewer is started again, so that links stay good.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pathology.errors import PathologyError, SlideError, StampMismatchError
from pathology.viewer.handles import Handles
from pathology.viewer.readings import Reading, Readings
from pathology.viewer.same_slide import difference

if TYPE_CHECKING:
    from pathology.explain.results.stored import StoredExplanation
    from pathology.slides import Slide
    from pathology.viewer.evidence import Evidence

RECORD = "explanation.json"
CACHE_BYTES = 64 * 2**20
"""Of what OpenSlide decoded last, of all slides."""
NOT_LABELS = ("slide_id", "path", "mpp", "regions")
"""Columns of a manifest of slides that say where and how, not what."""


class UnknownIdError(PathologyError, LookupError):
    """Nothing is known under an id."""


class HiddenError(PathologyError):
    """Blind mode: the slide was not read yet."""


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
    """

    id: str
    name: str
    path: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None
    problem: str | None = None


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

    @cached_property
    def explanation(self) -> "StoredExplanation":
        """What is in the folder.

        Raises:
            PathologyError: it is damaged.
        """
        from pathology.explain.results.stored import load_explanation

        return load_explanation(self.folder)

    @property
    def target(self) -> str:
        """What is explained."""
        return self.explanation.target


class Library:
    """Slides and evidence, by id.

    Args:
        slides: all slides, in the order of their list.
        evidence: all that runs said of them.
        readings: what the reader said of them; None where nothing is to be hidden.
        unmatched: folders of explanations of slides that are not on the list.
    """

    def __init__(
        self,
        slides: Sequence[SlideEntry],
        evidence: Sequence[EvidenceEntry],
        readings: Readings | None = None,
        unmatched: Sequence[Path] = (),
    ) -> None:
        self.slides = slides
        self.evidence = evidence
        self.runs: Sequence[RunResults] = list(dict.fromkeys(each.run for each in evidence))
        self.readings = readings
        self.unmatched = unmatched
        self.handles: Handles[Slide] = Handles()
        self.open_evidence: Handles[Evidence] = Handles()
        self._stamps: WeakKeyDictionary[Slide, str] = WeakKeyDictionary()
        self._mismatches: WeakKeyDictionary[Slide, dict[str, str | None]] = WeakKeyDictionary()
        self._slides = {each.id: each for each in slides}
        self._evidence = {each.id: each for each in evidence}
        self._of_slide: dict[str, list[EvidenceEntry]] = {}
        for each in evidence:
            self._of_slide.setdefault(each.slide.id, []).append(each)

    @classmethod
    def find(
        cls,
        slides: Path,
        results: Sequence[Path],
        mpp: float | None = None,
        readings: Path | None = None,
        *,
        recursive: bool = False,
    ) -> "Library":
        """Find slides, and what was said of them.

        Args:
            slides: a manifest (``.csv``), a folder that holds slide files, or one slide file.
            results: folders ``SLIDE/TARGET`` that ``pathology explain`` wrote, or that such are in.
            mpp: micrometres per level-0 pixel of slides that do not say it themselves.
            readings: file of the readings; evidence of a slide is hidden until it has one.
            recursive: look for slides in the folder's folders, too.

        Raises:
            PathologyError: no slides, a manifest that cannot be used, a folder of results that is
                not there or holds none, or a file of readings that cannot be gone on with.
        """
        from pathology.data.slide_list import list_slides, slide_mpp

        table = list_slides(slides, mpp, recursive, files=False)
        root = slides.resolve() if slides.is_dir() else None
        entries = [
            SlideEntry(
                id=_id("slide", row["slide_id"]),
                name=row["slide_id"],
                path=Path(row["path"]),
                labels=_labels(row),
                mpp=slide_mpp(row),
                problem=_way_out(Path(row["path"]), root),
            )
            for row in ({str(key): cell for key, cell in row.items()} for row in _rows(table))
        ]
        found = [each for folder in results for each in _explanations(folder)]
        evidence, unmatched = _entries(found, entries)
        return cls(
            entries, evidence, None if readings is None else Readings.open(readings), unmatched
        )

    def slide(self, slide: str) -> SlideEntry:
        """The slide of an id.

        Raises:
            UnknownIdError: there is none.
        """
        try:
            return self._slides[slide]
        except KeyError:
            raise UnknownIdError(f"no slide {slide!r}") from None

    def entry(self, evidence: str) -> EvidenceEntry:
        """The explanation of an id.

        Raises:
            UnknownIdError: there is none.
            HiddenError: its slide was not read yet.
            StampMismatchError: it was made of something else than the slide shown under its name.
        """
        found = self._evidence.get(evidence)
        if found is None:
            raise UnknownIdError(f"no explanation {evidence!r}")
        if self.is_hidden(found.slide):
            raise HiddenError(f"slide {found.slide.name}: hidden until you have said what it shows")
        with suppress(SlideError):  # one that cannot be shown cannot be mistaken, either
            self.open(found.slide.id)
        if problem := self.mismatch(found):
            raise StampMismatchError(f"slide {found.slide.name}: {problem}")
        return found

    def mismatch(self, entry: EvidenceEntry) -> str | None:
        """What an explanation's slide differs in from the one that is open; None where none is.

        Raises:
            PathologyError: its record is damaged.
        """
        slide = self.opened(entry.slide)
        if slide is None:
            return None
        found = self._mismatches.setdefault(slide, {})
        if entry.id not in found:
            found[entry.id] = difference(entry.explanation.record, slide, self.stamp(slide))
        return found[entry.id]

    def evidence_of(self, slide: SlideEntry) -> Sequence[EvidenceEntry]:
        """All that was said of a slide, hidden or not."""
        return self._of_slide.get(slide.id, [])

    def reading(self, slide: SlideEntry) -> Reading | None:
        """The blind reading of a slide, if there is one."""
        return None if self.readings is None else self.readings.of(slide.name)

    def is_hidden(self, slide: SlideEntry) -> bool:
        """Whether what was said of a slide is not to be shown yet."""
        return self.readings is not None and self.readings.of(slide.name) is None

    def open(self, slide: str) -> "Slide":
        """A slide, open; it is shared by all who ask, and nobody's to close.

        Raises:
            UnknownIdError: there is none of this id.
            SlideError: it cannot be opened; :attr:`SlideEntry.problem` says why from then on.
        """
        entry = self.slide(slide)
        try:
            opened = self.handles.get(entry.id, lambda: _open(entry))
        except SlideError as error:
            # Its name says as much to a reader as its path, and less to others.
            entry.problem = str(error).replace(f"{entry.path}: ", "")
            raise SlideError(f"slide {entry.name}: {entry.problem}") from error
        entry.problem = None
        return opened

    def opened(self, slide: SlideEntry) -> "Slide | None":
        """A slide that was opened before and still is; None where opening would take time."""
        return self.handles.peek(slide.id)

    def stamp(self, slide: "Slide") -> str:
        """Fingerprint of an open slide, worked out once."""
        stamp = self._stamps.get(slide)
        if stamp is None:
            stamp = self._stamps[slide] = slide.stamp()
        return stamp

    def close(self) -> None:
        """Let go of all files."""
        self.handles.clear()
        self.open_evidence.clear()


def _open(entry: SlideEntry) -> "Slide":
    from pathology.slides import open_slide
    from pathology.slides.openslide import share_cache

    share_cache(CACHE_BYTES)
    if entry.problem is not None and entry.problem.startswith(_OUTSIDE):
        raise SlideError(entry.problem)
    return open_slide(entry.path, entry.mpp)


_OUTSIDE = "leads out of"


def _way_out(path: Path, root: Path | None) -> str | None:
    """Why a file of a folder is not to be opened: a link that leads elsewhere."""
    if root is None or path.resolve().is_relative_to(root):
        return None
    return (
        f"{_OUTSIDE} the folder of slides, which may show what was not meant to be shown;"
        " to show it, list it in a slides.csv"
    )


def _rows(table: Any) -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = table.to_dict("records")
    return rows


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(cell)
        for name, cell in row.items()
        if name not in NOT_LABELS and isinstance(cell, str) and cell
    }


def _id(*names: str) -> str:
    """Twelve digits that a thing's names make."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:12]


def _explanations(folder: Path) -> list[Path]:
    """The folders ``RUN/SLIDE/TARGET`` in a folder, or it itself; sorted.

    Raises:
        PathologyError: it is not there, or none is in it.
    """
    if not folder.is_dir():
        raise PathologyError(f"{folder}: no such folder; give what `pathology explain` wrote")
    found = list(_walk(folder.resolve(), 3))
    if not found:
        raise PathologyError(
            f"{folder}: no explanation in it (wanted SLIDE/TARGET/{RECORD}, in folders of runs or"
            " not); give what `pathology explain` wrote"
        )
    return found


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with a record, at most ``depth`` below ``folder``, and nothing below those."""
    with os.scandir(folder) as inside:
        entries = sorted(inside, key=lambda entry: entry.name)
    if any(entry.name == RECORD for entry in entries):
        yield folder
    elif depth:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir():
                yield from _walk(folder / entry.name, depth - 1)


def _entries(
    folders: Iterable[Path], slides: Iterable[SlideEntry]
) -> tuple[list[EvidenceEntry], list[Path]]:
    """Explanations of slides, and those of slides that are not there."""
    by_name = {slide.name: slide for slide in slides}
    folders = list(dict.fromkeys(folders))
    runs = _runs(dict.fromkeys(folder.parent.parent for folder in folders))
    entries, unmatched = [], []
    for folder in folders:
        slide = by_name.get(folder.parent.name)
        run = runs[folder.parent.parent]
        if slide is None:
            unmatched.append(folder)
            continue
        name = _id("evidence", str(run.folder), slide.name, folder.name)
        entries.append(EvidenceEntry(name, run, slide, folder))
    return entries, unmatched


def _runs(folders: Iterable[Path]) -> dict[Path, RunResults]:
    """Runs by their folders, with names as short as tells them apart."""
    folders = list(folders)
    runs = {}
    for folder in folders:
        others = [other for other in folders if other != folder]
        parts = 1
        while parts < len(folder.parts) and any(
            folder.parts[-parts:] == other.parts[-parts:] for other in others
        ):
            parts += 1
        name = "/".join(folder.parts[-parts:])
        runs[folder] = RunResults(_id("run", str(folder)), name, folder)
    return runs
