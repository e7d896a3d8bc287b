"""What a viewer can show: slides, and what runs said of them, each under an opaque id.

Ids are what requests name things by. They say nothing of where a file is, and stay the same when
the viewer is started again, so that links stay good.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pathology.errors import PathologyError, SlideError, StampMismatchError
from pathology.viewer.library.entries import EvidenceEntry, RunResults, SlideEntry, file_stamp
from pathology.viewer.library.find import find_evidence, find_slides, way_out
from pathology.viewer.library.handles import Handles
from pathology.viewer.library.readings import Reading, Readings
from pathology.viewer.library.same_slide import difference

if TYPE_CHECKING:
    from pathology.slides import Slide
    from pathology.viewer.evidence.evidence import Evidence

CACHE_BYTES = 64 * 2**20
"""Of what OpenSlide decoded last, of all slides."""


class UnknownIdError(PathologyError, LookupError):
    """Nothing is known under an id."""


class HiddenError(PathologyError):
    """Blind mode: the slide was not read yet."""


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
        self._mismatches: WeakKeyDictionary[Slide, dict[object, str | None]] = WeakKeyDictionary()
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
            mpp: micrometres per level-0 pixel of slides whose row does not say it, whatever their
                files say.
            readings: file of the readings; evidence of a slide is hidden until it has one.
            recursive: look for slides in the folder's folders, too.

        Raises:
            PathologyError: no slides, a manifest that cannot be used, a folder of results that is
                not there or holds none, or a file of readings that cannot be gone on with.
        """
        found = find_slides(slides, mpp, recursive)
        evidence, unmatched = find_evidence(results, found)
        opened = None if readings is None else Readings.open(readings)
        return cls(found, evidence, opened, unmatched)

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
            StampMismatchError: it was made of something else than the slide shown under its name,
                or one of the two was written anew, see :meth:`refresh`.
        """
        found = self._evidence.get(evidence)
        if found is None:
            raise UnknownIdError(f"no explanation {evidence!r}")
        if self.is_hidden(found.slide):
            raise HiddenError(f"slide {found.slide.name}: hidden until you have said what it shows")
        if found.is_anew:
            raise StampMismatchError(
                f"slide {found.slide.name}: it was explained again meanwhile; reload the page"
            )
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
        explanation = entry.explanation
        if explanation not in found:
            found[explanation] = difference(explanation.record, slide, self.stamp(slide))
        return found[explanation]

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
            StampMismatchError: its file was replaced, see :meth:`refresh`.
        """
        entry = self.slide(slide)
        if entry.is_anew:
            raise StampMismatchError(
                f"slide {entry.name}: its file was replaced meanwhile; reload the page"
            )
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

    def refresh(self) -> None:
        """Take what was written anew as it is now.

        A page keeps sizes, scales and sums, and what it asks for later must be of the same files.
        So these stay as they were seen first, or are refused, until a page begins anew.
        """
        for slide in self.slides:
            if slide.is_anew:
                slide.seen = None
                self.handles.drop(slide.id)
        anew = [entry for entry in self.evidence if entry.is_anew]
        for entry in anew:
            entry.forget()
        if anew:
            self.open_evidence.clear()

    def close(self) -> None:
        """Let go of all files."""
        self.handles.clear()
        self.open_evidence.clear()


def _open(entry: SlideEntry) -> "Slide":
    from pathology.slides import open_slide
    from pathology.slides.openslide import share_cache

    share_cache(CACHE_BYTES)
    if problem := way_out(entry.path, entry.root):
        raise SlideError(problem)
    stamp = file_stamp(entry.path)
    opened = open_slide(entry.path, entry.mpp)
    entry.seen = stamp
    return opened
