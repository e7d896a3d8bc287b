"""Looking for files whose names differ in case and depth between copies of a data set."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pathology.data.image_files import IMAGE_SUFFIXES
from pathology.errors import ManifestError


def child(folder: Path, *names: str) -> Path | None:
    """``folder/name/name...`` whatever its letters' case; ``None`` where it is not."""
    for name in names:
        if not folder.is_dir():
            return None
        if not (folder / name).exists():
            found = [entry for entry in folder.iterdir() if entry.name.lower() == name.lower()]
            if not found:
                return None
            name = min(found).name
        folder = folder / name
    return folder


def here_or_below(folder: Path, name: str) -> Path | None:
    """The folder called ``name``: this one, or one in it."""
    # Not resolved: a link is called what its owner called it. Made absolute, for ".".
    if folder.is_dir() and folder.absolute().name.lower() == name.lower():
        return folder
    found = child(folder, name)
    return found if found is not None and found.is_dir() else None


def files_below(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """All files that end so (whatever the case), sorted; hidden ones left out.

    Raises:
        ManifestError: a name that is not text, which no table could hold.
    """
    endings = tuple(suffixes)
    found = sorted(path for path in _walk(folder) if path.name.lower().endswith(endings))
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ManifestError(f"{str(path)!a}: the name is not UTF-8; rename it") from error
    return found


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    # Archives are often assembled from links to other disks; a link to above must not go round.
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def files_in(folder: Path) -> list[Path]:
    """Files in a folder itself, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def names(paths: Iterable[Path], root: Path) -> tuple[str, ...]:
    """Paths as seen from ``root``."""
    return tuple(
        p.relative_to(root).as_posix() if p.is_relative_to(root) else str(p) for p in paths
    )
