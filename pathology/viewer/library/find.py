"""Finding what a viewer can show: slides on a list or in a folder, and explanations of runs."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathology.errors import PathologyError
from pathology.viewer.library.entries import RECORD, EvidenceEntry, RunResults, SlideEntry

NOT_LABELS = ("slide_id", "path", "mpp", "regions")
"""Columns of a manifest of slides that say where and how, not what."""


def find_slides(slides: Path, mpp: float | None, recursive: bool) -> list[SlideEntry]:
    """The slides of a manifest or a folder, or one slide; files that are not there among them.

    Raises:
        ManifestError: none, or a manifest that cannot be used.
    """
    from pathology.data.slide_list import list_slides, slide_mpp

    table = list_slides(slides, mpp, recursive, files=False)
    root = slides.resolve() if slides.is_dir() else None
    rows = [{str(key): cell for key, cell in row.items()} for row in table.to_dict("records")]
    return [
        SlideEntry(
            id=_id("slide", row["slide_id"]),
            name=row["slide_id"],
            path=Path(row["path"]),
            labels=_labels(row),
            mpp=slide_mpp(row),
            problem=way_out(Path(row["path"]), root),
            root=root,
        )
        for row in rows
    ]


def find_evidence(
    results: Iterable[Path], slides: Iterable[SlideEntry]
) -> tuple[list[EvidenceEntry], list[Path]]:
    """Explanations of slides, and folders of those whose slides are not there.

    Raises:
        PathologyError: a folder is not there, cannot be read, or holds none.
    """
    by_name = {slide.name: slide for slide in slides}
    # Once, in whatever ways it was named.
    folders = list(dict.fromkeys(each for folder in results for each in _explanations(folder)))
    runs = _runs(list(dict.fromkeys(folder.parent.parent for folder in folders)))
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


def way_out(path: Path, root: Path | None) -> str | None:
    """Why a file of a folder is not to be opened: a link that leads elsewhere."""
    if root is None or path.resolve().is_relative_to(root):
        return None
    return (
        "leads out of the folder of slides, which may show what was not meant to be shown;"
        " to show it, list it in a slides.csv"
    )


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: cell
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
    try:
        found = list(_walk(folder.resolve(), 3))
    except OSError as error:
        raise PathologyError(f"{error.filename}: cannot be read: {error.strerror}") from error
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


def _runs(folders: Sequence[Path]) -> dict[Path, RunResults]:
    """Runs by their folders, with names as short as tells them apart."""
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
