"""Slides by URL: fetched to this machine's disk for as long as they are worked on."""

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pathology.errors import OutputError, SlideError, SlideOpenError
from pathology.store.store import Seen, Store, is_url

_UNKNOWN_PARTS = {".vms", ".vmu"}


def seen_file(path: str) -> Seen | None:
    """Size and tag of a slide's file, or of another, by path or URL; ``None`` where there is none.

    Raises:
        SlideOpenError: the store cannot be asked.
    """
    try:
        store, name = (
            _split(path) if is_url(path) else (Store.at(Path(path).parent), Path(path).name)
        )
        return store.seen(name)
    except OutputError as error:
        raise SlideOpenError(str(error)) from error


def fetch_slide(url: str, folder: Path) -> Path:
    """Fetch a slide with all the files it is made of, complete or not at all.

    A MIRAX slide is fetched with the folder of its name, a DICOM slide with all ``.dcm`` files
    beside it: keep one DICOM slide in a folder. Formats whose parts only the file itself names
    (``.vms``, ``.vmu``) are refused.

    Args:
        url: of the slide.
        folder: where to put it.

    Returns:
        Its path here.

    Raises:
        SlideError: it is not there or cannot be fetched, or there is not enough room.
    """
    store, name = _split(url)
    main = local_name(url)
    try:
        names = _parts(store, name, url)
        need = sum(_bytes(store, each) for each in names)
        _check_room(folder, need, url)
        for each in names:
            store.get(each, folder / (main if each == name else each))
    except FileNotFoundError as error:
        raise SlideOpenError("there is no such file", str(error)) from error
    except OutputError as error:
        raise SlideOpenError(str(error)) from error
    return folder / main


def _split(url: str) -> tuple[Store, str]:
    try:
        parent, _, name = url.rpartition("/")
        return Store.at(parent), name
    except ValueError as error:
        raise SlideOpenError(str(error)) from error


def _parts(store: Store, name: str, url: str) -> Sequence[str]:
    """Names of all the files of a slide, itself last."""
    end = PurePosixPath(local_name(url)).suffix.lower()
    if end in _UNKNOWN_PARTS:
        raise SlideOpenError(
            f"a {end} slide is several files that only it knows the names of; copy it to a disk, or"
            " convert it to a TIFF pyramid",
            url,
        )
    if end == ".mrxs":
        stem = PurePosixPath(name).stem
        inside = store.names(f"{stem}/")
        if not inside:
            raise SlideOpenError(f"the folder {stem}, which is part of it, is not beside it", url)
        return [*inside, name]
    if end == ".dcm":
        beside = [each for each in store.names(deep=False) if each.lower().endswith(".dcm")]
        return [*(each for each in beside if each != name), name]
    return [name]


def _bytes(store: Store, name: str) -> int:
    seen = store.seen(name)
    if seen is None:
        raise FileNotFoundError(store.where(name))
    return seen.bytes


def local_name(url: str) -> str:
    """The name that a file has here."""
    name = url.rpartition("/")[2]
    # A signed web address goes on after it.
    return name.partition("?")[0] if url.lower().startswith(("http://", "https://")) else name


def _check_room(folder: Path, need: int, url: str) -> None:
    have = shutil.disk_usage(folder).free
    if need > have:
        raise SlideError(
            f"needs {need / 2**30:.2f} GiB in {folder.parent} to be fetched to, where there are"
            f" {have / 2**30:.2f}; set TMPDIR to a folder on a larger disk, or use fewer workers",
            url,
        )
