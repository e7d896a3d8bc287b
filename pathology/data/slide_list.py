"""Which slides a command is about: a manifest, a folder, or one file."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from pathology.data.manifest import read_slide_manifest
from pathology.errors import ManifestError
from pathology.store.store import Store, is_url

SUFFIXES = {
    ".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".dcm",
    ".czi",
}  # fmt: skip
_DICOM_HEAD = 2**18  # bytes of a DICOM file in which its series is named, before any pixels
_WANTED = f"wanted files ending in {', '.join(sorted(SUFFIXES))}"


def list_slides(
    slides: str | Path, mpp: float | None = None, recursive: bool = False, *, files: bool = True
) -> pd.DataFrame:
    """One row per slide: ``slide_id``, ``path``, ``mpp`` and whatever a manifest adds.

    Args:
        slides: a manifest (``.csv``), a folder that holds slide files, or one slide file; or a URL
            of one of these. Paths of a manifest by URL are relative to its own folder there.
        mpp: micrometres per level-0 pixel for slides whose manifest row does not say.
        recursive: look for slides in the folder's folders, too. Hidden files and folders are
            passed over.
        files: refuse a manifest whose files are not there.

    Raises:
        ManifestError: nothing there, a manifest that cannot be used, two slides of one name, or
            one whose name cannot be that of a file.
        OutputError: a store cannot be asked.
    """
    if is_url(slides):
        table = _of_store(str(slides), recursive)
    else:
        table = _of_disk(Store.at(slides).folder, recursive, files)
    for name, same in table.groupby("slide_id")["path"]:
        if len(same) > 1:
            raise ManifestError(
                f"{slides}: two files are called {name!r}: {' and '.join(same.iloc[:2])};"
                " rename one, or list them in a manifest with a slide_id each"
            )
    for name in table["slide_id"]:
        if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ManifestError(
                f"{slides}: slide_id {name!r} cannot be the name of a file; results are named by it"
            )
    given = table["mpp"].astype(float) if "mpp" in table else pd.Series(float("nan"), table.index)
    table["mpp"] = given if mpp is None else given.fillna(mpp)
    return table


def _of_disk(slides: Path, recursive: bool, files: bool) -> pd.DataFrame:
    if slides.suffix.lower() == ".csv":
        return read_slide_manifest(slides, files=files)
    if not slides.exists():
        raise ManifestError(
            f"{slides}: no such file or folder; give slides.csv, a folder or a slide"
        )
    found = _slide_files(slides, recursive) if slides.is_dir() else {slides: slides.stem}
    return pd.DataFrame({"slide_id": [*found.values()], "path": [str(p) for p in found]})


def _of_store(url: str, recursive: bool) -> pd.DataFrame:
    """The same of a URL."""
    parent, _, name = url.rstrip("/").rpartition("/")
    # A bucket is a folder, whatever it is called.
    end = "" if parent.endswith(":/") else PurePosixPath(name).suffix.lower()
    if end == ".csv":
        return _manifest_of_store(Store.at(parent), name)
    if end in SUFFIXES:
        found = [url] if Store.at(parent).exists(name) else []
    else:
        store = Store.at(url)
        names = store.names(deep=recursive)
        found = [store.where(each) for each in _one_of_each_series(names)]
    if not found:
        raise ManifestError(
            f"{url}: no slide there; give slides.csv, a folder or a slide"
            f"{'' if recursive else ', or --recursive'}; {_WANTED}"
        )
    return pd.DataFrame({"slide_id": [PurePosixPath(each).stem for each in found], "path": found})


def _manifest_of_store(store: Store, name: str) -> pd.DataFrame:
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        try:
            store.get(name, file)
            return read_slide_manifest(file, root=store.place)
        except FileNotFoundError as error:
            raise ManifestError(f"{store.where(name)}: no such manifest") from error
        except ManifestError as error:
            # It is read here, and known by its URL.
            text = str(error).replace(str(file), store.where(name))
            raise type(error)(text) from error


def _one_of_each_series(names: Iterable[str]) -> list[str]:
    """Slides of a store, of the DICOM files in one folder the first: they are one slide."""
    found: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in path.parts)
        if not hidden and path.suffix.lower() in SUFFIXES:
            is_dicom = path.suffix.lower() == ".dcm"
            found.setdefault(f"{path.parent}/" if is_dicom else name, name)
    return sorted(found.values())


def _slide_files(folder: Path, recursive: bool) -> dict[Path, str]:
    """The slides in a folder, sorted, and their names."""
    files = sorted(_all_files(folder) if recursive else folder.iterdir())
    found = [p for p in files if _is_slide(p)]
    if not found:
        nested = not recursive and any(_is_slide(path) for path in _all_files(folder))
        raise ManifestError(
            f"{folder}: no slide in this folder; "
            + ("there are some in its folders: use --recursive" if nested else _WANTED)
        )
    series: dict[tuple[Path, bytes], list[Path]] = {}
    for path in found:
        # A DICOM slide is a series of files, any of which opens all of it.
        is_dicom = path.suffix.lower() == ".dcm"
        key = _dicom_series(path) if is_dicom else os.fsencode(path.name)
        series.setdefault((path.parent, key), []).append(path)
    several = Counter(parent for (parent, _), paths in series.items() if len(paths) > 1)
    # Files of a series have numbers for names; a folder of its own names the slide.
    return {
        paths[0]: parent.name
        if len(paths) > 1 and several[parent] == 1 and parent != folder
        else paths[0].stem
        for (parent, _), paths in series.items()
    }


def _dicom_series(path: Path) -> bytes:
    """The identifier of the series that a DICOM file is part of; its name where it has none."""
    try:
        with path.open("rb") as file:
            head = file.read(_DICOM_HEAD)
    except OSError:
        head = b""  # opening it will say what is wrong
    # Whole slides are explicit little endian: tag (0020,000E), type UI, a length of two bytes.
    tag = head.find(b"\x20\x00\x0e\x00UI")
    if tag < 0:
        return os.fsencode(path.name)
    length = int.from_bytes(head[tag + 6 : tag + 8], "little")
    return head[tag + 8 : tag + 8 + length]


def _is_slide(path: Path) -> bool:
    # macOS leaves a "._x.svs" beside every x.svs on foreign disks.
    name = path.name
    return not name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file()


def _all_files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in names)


def slide_mpp(row: dict[str, Any]) -> float | None:
    """The mpp to open a listed slide with, ``None`` to ask the file."""
    return None if pd.isna(row["mpp"]) else float(row["mpp"])
