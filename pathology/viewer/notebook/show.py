"""The viewer in a notebook: one slide, and what was said of it.

::

    result = explain_slide(slide, grid, run, "tumour")
    show(slide, result)

It is the page of ``pathology view``, and its answers are those of the same routes; they come over
the widget's channel, so it works wherever the notebook does, on hubs as well.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.errors import PathologyError, StampMismatchError
from pathology.explain.results.shown import Shown
from pathology.explain.results.stored import RECORD, StoredExplanation, load_explanation
from pathology.maps.extras import imported
from pathology.runs.as_arguments import as_arguments
from pathology.runs.encoder_choice import EncoderChoice
from pathology.slides import Slide, open_slide
from pathology.viewer.library.library import EvidenceEntry, Library, RunResults, SlideEntry
from pathology.viewer.model import ModelClient

if TYPE_CHECKING:
    from pathology.viewer.notebook.widget import Viewer

Result = Shown | str | Path

DEEPEST = 3
"""Folders between one that is given and its explanations: ``RUN/SLIDE/TARGET``."""


class OneSlide(Library):
    """A library of one slide, which may be in memory.

    Args:
        slide: to be shown.
        evidence: what was said of it.
        opener: opens the slide.
    """

    def __init__(
        self, slide: SlideEntry, evidence: Sequence[EvidenceEntry], opener: "partial[Slide]"
    ) -> None:
        super().__init__([slide], evidence)
        self._opener = opener

    def open(self, slide: str) -> Slide:
        return self.handles.get(self.slide(slide).id, self._opener)


def show(
    slide: Slide | str | Path,
    result: Result | Sequence[Result] = (),
    *,
    run: str | Path | Sequence[str | Path] | None = None,
    encoder: str | EncoderChoice | None = None,
    stains: str | Path | None = None,
    device: str = "auto",
    height: int = 600,
) -> "Viewer":
    """Show a slide and explanations of it in a notebook, to be zoomed into and asked.

    Args:
        slide: the slide, or its file. One that is open is opened anew and may be closed; only one
            in memory is shown itself.
        result: an explanation, fresh or read back; a folder that ``pathology explain`` wrote, or
            one that such are in, of which those of this slide are shown; or several of these. The
            slide alone when there is none.
        run: the run that was explained, or several, to be asked about tiles and regions; loaded in
            a process of its own by the first question.
        encoder: of the run, as for :func:`pathology.api.load_run`; likewise stains and device.
        stains: folder of stain profiles.
        device: where it computes.
        height: of the cell, in pixels.

    Returns:
        The widget; a notebook shows it as the last line of a cell. Its ``close()`` takes it away
        and lets go of its memory, that of its run included.

    Raises:
        ManifestError: there is no such run.
        MissingExtraError: anywidget or Starlette is not installed; says what to install.
        PathologyError: a folder holds no explanation of the slide.
        SlideError: the slide cannot be opened.
        StampMismatchError: an explanation is of another slide, or a run made none of them.
        ValueError: ``height`` is not positive; a run, and a slide without a file.
    """
    for package in ("anywidget", "starlette"):
        imported(package, "notebook")
    from pathology.viewer.notebook.widget import Viewer

    if height < 1:
        raise ValueError(f"height must be at least 1 px, got {height}")
    results = [result] if isinstance(result, Shown | str | Path) else list(result)
    opener = _opener(slide)
    opened = opener()
    folder = Path(tempfile.mkdtemp(prefix="pathology-show-"))
    try:
        found = list(_stored(results, opened, folder))
        entry = SlideEntry(_id(0), opened.slide_id, opened.path or Path(), mpp=opened.mpp.x)
        library = OneSlide(entry, _evidence(found, entry), opener)
        words = ", ".join(f"{each.run.name}: {each.target}" for each in library.evidence)
        words = f"slide {opened.slide_id!r}; {words}"
        model = None if run is None else _model(library, opened, run, encoder, stains, device)
        return Viewer(library, words, height=height, folder=folder, model=model)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _model(
    library: Library,
    slide: Slide,
    run: str | Path | Sequence[str | Path],
    encoder: str | EncoderChoice | None,
    stains: str | Path | None,
    device: str,
) -> ModelClient:
    """Who is asked; nothing is loaded yet."""
    if slide.path is None:
        raise ValueError("run: a slide in memory cannot be asked about; save it, and show its file")
    runs = [run] if isinstance(run, str | Path) else list(run)
    choice = EncoderChoice(encoder) if isinstance(encoder, str) else encoder
    with as_arguments():
        model = ModelClient(runs, device, choice, None if stains is None else Path(stains))
        model.check(each.folder for each in library.evidence)
    return model


def _opener(slide: Slide | str | Path) -> "partial[Slide]":
    """What opens a slide, or returns the one that is in memory."""
    if isinstance(slide, str | Path):
        return partial(open_slide, slide)
    if slide.path is None:
        return partial(lambda: slide)
    mpp = (slide.mpp.x, slide.mpp.y) if slide.mpp_source == "given" else None
    return partial(open_slide, slide.path, mpp, colour=slide.colour)


def _stored(results: Sequence[Result], slide: Slide, scratch: Path) -> Iterator[StoredExplanation]:
    """Explanations with folders of theirs; what was not saved is saved into ``scratch``."""
    for number, result in enumerate(results):
        if isinstance(result, str | Path):
            yield from _found(Path(result), slide)
            continue
        if not isinstance(result, Shown):
            raise TypeError(f"result must be an explanation or a folder, got {result!r}")
        _check_slide(result, result.record, slide)
        yield result.stored(scratch / str(number))


def _found(folder: Path, slide: Slide) -> list[StoredExplanation]:
    """The explanation in a folder; or of those in its folders, the slide's."""
    if (folder / RECORD).is_file():
        explanation = load_explanation(folder)
        _check_slide(explanation, explanation.record, slide)
        return [explanation]
    paths = [path for deep in range(DEEPEST) for path in folder.glob(f"*/{'*/' * deep}{RECORD}")]
    explanations = [load_explanation(path.parent) for path in sorted(paths)]
    fitting = [each for each in explanations if _is_of(each.record, slide)]
    if not fitting:
        others = ", ".join(sorted({each.slide_id for each in explanations})[:5]) or "nothing"
        raise PathologyError(
            f"{folder}: no explanation of slide {slide.slide_id!r} in it, it has {others};"
            " give what `pathology explain` wrote"
        )
    return fitting


def _is_of(record: Mapping[str, Any], slide: Slide) -> bool:
    """Whether an explanation is of a slide: by its fingerprint, by its name where there is none."""
    stamp = record.get("settings", {}).get("slide")
    return record["slide_id"] == slide.slide_id if stamp is None else stamp == slide.stamp()


def _check_slide(result: Shown, record: Mapping[str, Any], slide: Slide) -> None:
    if not _is_of(record, slide):
        raise StampMismatchError(
            f"the explanation of {result.target!r} is of slide {result.slide_id!r}, and not of"
            f" {slide.path or slide.slide_id} as it is now; show it with its own slide"
        )


def _evidence(results: Sequence[StoredExplanation], slide: SlideEntry) -> list[EvidenceEntry]:
    """Explanations as the viewer lists them, by the runs that made them."""
    runs: dict[tuple[str, str], RunResults] = {}
    entries = []
    for number, result in enumerate({each.folder.resolve(): each for each in results}.values()):
        name = result.provenance.get("run") or result.folder.absolute().parent.parent.name
        key = name, str(result.settings.get("checkpoint", ""))
        if key not in runs:
            same = sum(known == name for known, _ in runs)
            called = f"{name} ({same + 1})" if same else name
            runs[key] = RunResults(_id(len(runs)), called, result.folder.parent.parent)
        entries.append(EvidenceEntry(_id(number), runs[key], slide, result.folder))
    return entries


def _id(number: int) -> str:
    """An id like those of the library; nothing outside of the widget ever names it."""
    return f"{number + 1:012x}"
