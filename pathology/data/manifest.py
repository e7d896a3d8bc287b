"""Manifests: the tables that say which files there are, what they show and which split they are in.

Two kinds, both CSV with a header:

* of tiles: ``path`` (or ``file``), ``label`` and ``split`` -- one image file a row; with a column
  ``index`` the file is an array of images (``.h5``, ``.npy``, or ``images.npz#name``) and the index
  a place in it. Where a tile may have any number of labels, several are joined by ``;``, and one
  that has none says ``none``. Without ``split`` it can be evaluated as a whole, not trained on;
* of slides: ``slide_id, path, split`` and, where known, ``patient_id, site, label, mpp, regions``.

Paths are relative to the manifest's own folder, of tiles to its folder ``images`` where they are
there instead, unless a root is given. A manifest is checked as a
whole before anything long starts; what is wrong with it is said in one line, with the rows. One
that ``pathology data split`` wrote is also checked against the checksum that was written with it.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathology.errors import LeakageError, ManifestError
from pathology.outputs import complete_file
from pathology.store.store import is_url, local_path

SPLITS = ("train", "val", "test")
CHECKSUMS = "splits.json"  # beside manifests that were made by splitting another one
IMAGES = "images"  # folder of a tile manifest's images, where they are not beside it
FILE_COLUMNS = ("path", "regions")
# Columns that mean something here; of another case they would be passed over without a word.
KNOWN = ("path", "label", "split", "slide_id", "patient_id")
KNOWN_OF_SLIDES = ("mpp", "regions")
# What must not be on both sides of a split. Other groups (a site, say) are for splits to respect.
SOURCES = ("patient_id", "slide_id")
_SHOWN = 3


def read_tile_manifest(
    path: str | Path, *, root: str | Path | None = None, path_column: str | None = None
) -> pd.DataFrame:
    """Read and check a manifest of image files.

    Args:
        path: the CSV file.
        root: folder that image paths are relative to; when omitted the manifest's own, or its
            folder ``images`` if the first image is there instead.
        path_column: name of the column that holds the image's path; ``path``, or ``file``, when
            omitted.

    Returns:
        One row per image: ``path`` (absolute), ``label``, where the file has them ``split`` and
        ``index`` (int64), and whatever else it holds.

    Raises:
        ManifestError: unreadable, empty, a column, file or label missing, an unknown split, an
            image under two labels.
        LeakageError: a patient, slide or image in more than one split.
    """
    if path_column is None:
        path_column = _path_column(path)
    table = _read(path, required=(path_column, "label"))
    if path_column != "path" and "path" in table:
        table = table.drop(columns="path")
    table = table.rename(columns={path_column: "path"})
    _check_filled(path, table, "path")
    _check_filled(path, table, "label")
    if "index" in table:
        table["index"] = np.array([_place(path, i, cell) for i, cell in table["index"].items()])
    _resolve(path, table, "path", image_root(path, table["path"]) if root is None else root)
    _check_labels(path, table)
    if "split" in table:
        _check_splits(path, table)
    return table


def image_root(path: str | Path, names: Iterable[str]) -> Path:
    """The folder that a tile manifest's images are in: its own, or its folder ``images``.

    Args:
        path: the manifest.
        names: paths as they stand in it.
    """
    own = Path(path).parent
    first = next(iter(names), "")
    inside = own / IMAGES
    return inside if not _is_there(str(own / first)) and _is_there(str(inside / first)) else own


def read_slide_manifest(
    path: str | Path, *, root: str | Path | None = None, files: bool = True
) -> pd.DataFrame:
    """Read and check a manifest of slides.

    Args:
        path: the CSV file.
        root: folder or URL that paths are relative to; the manifest's own when omitted. Paths may
            be URLs themselves.
        files: refuse rows whose files are not there; what URLs name is not looked for.

    Returns:
        One row per slide: ``slide_id``, ``path`` and, where the file has them, ``split``,
        ``patient_id``, ``label``, ``mpp`` (float, NaN where empty) and ``regions`` (absolute).

    Raises:
        ManifestError: unreadable, empty, a column or file missing, a slide twice.
        LeakageError: a patient or file in more than one split.
    """
    table = _read(path, required=("slide_id", "path"))
    _check_filled(path, table, "slide_id")
    _check_filled(path, table, "path")
    twice = table.index[table["slide_id"].duplicated()]
    if len(twice):
        raise ManifestError(
            f"{path}: slide_id {table['slide_id'][twice[0]]!r} stands in more than one row"
            f" (row {_line(twice[0])}); give every slide its own"
        )
    _resolve(path, table, "path", root, files)
    if "regions" in table:
        _resolve(path, table, "regions", root, files)
    if "mpp" in table:
        table["mpp"] = [_positive(path, i, cell) for i, cell in table["mpp"].items()]
    if "split" in table:
        _check_splits(path, table)
    return table


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a manifest of either kind as text, its files checked and absolute.

    A column of images that is called ``file`` becomes ``path``.

    Raises:
        ManifestError: unreadable, empty, without files, or a file is missing.
    """
    column = _path_column(path)
    table = _read(path, required=(column,)).rename(columns={column: "path"})
    _check_filled(path, table, "path")
    for column in FILE_COLUMNS:
        if column in table:
            _resolve(path, table, column, image_root(path, table[column]))
    return table


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as a manifest, its files relative to the manifest's folder.

    Args:
        table: rows of either kind; paths absolute, or relative to where one stands.
        path: the CSV file; one of that name is replaced in one step.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    table = table.copy()
    for column in set(FILE_COLUMNS) & set(table.columns):
        table[column] = [_relative(name, path.parent) for name in table[column]]
    with complete_file(path) as draft:
        table.to_csv(draft, index=False, lineterminator="\n")


def _relative(name: str, folder: Path) -> str:
    """``name`` as seen from ``folder``; as it is where no way leads there (another drive)."""
    try:
        return Path(os.path.relpath(name, folder)).as_posix() if name else ""
    except ValueError:
        return name


def _path_column(path: str | Path) -> str:
    """The column of images of a table that nobody said it of; ``path`` where there is none."""
    try:
        head = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, nrows=0)
    except (OSError, ValueError):  # said when the table is read
        return "path"
    names = {str(name).strip() for name in head.columns}
    return "file" if "file" in names and "path" not in names else "path"


def _line(index: Any) -> int:
    """Line of the CSV file that a row came from, counted from 1, header included."""
    return int(index) + 2


def _positive(path: str | Path, index: Any, cell: str) -> float:
    """The number in a cell, NaN when it is empty."""
    try:
        number = float(cell) if cell.strip() else math.nan
    except ValueError:
        number = 0.0
    if number <= 0 or math.isinf(number):
        raise ManifestError(
            f"{path}: row {_line(index)} has mpp {cell!r}; wanted micrometres per pixel, e.g. 0.25"
        )
    return number


def _place(path: str | Path, index: Any, cell: str) -> int:
    """The place in an array of images."""
    if not (cell.strip().isascii() and cell.strip().isdigit()):
        raise ManifestError(
            f"{path}: row {_line(index)} has index {cell!r}; wanted a whole number from 0"
        )
    return int(cell)


def checksum(path: Path) -> str:
    """SHA-256 of a table, the same whatever its line ends: version control changes them."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def image_names(table: pd.DataFrame) -> "pd.Series[str]":
    """One name for each image, or slide file, however its path is spelt."""
    spelt = table["path"]
    names = spelt.map({path: os.path.normpath(path) for path in spelt.unique()})
    if "index" not in table:
        return names
    return names + "#" + table["index"].astype(str).str.lstrip("0").replace("", "0")


def _check_unedited(path: Path) -> None:
    """Refuse a manifest that is no longer what splitting another one had made."""
    try:
        made = json.loads((path.parent / CHECKSUMS).read_text())["manifests"][path.name]
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing was said about this one
    if made["sha256"] != checksum(path):
        raise ManifestError(
            f"{path}: changed since it was split (its checksum is not the one in {CHECKSUMS});"
            " split the source again, or copy the table elsewhere to make it your own"
        )


def _read(path: str | Path, required: tuple[str, ...]) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; give the path of a CSV file")
    _check_unedited(path)
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would be cut, or shift every column.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
            head = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, nrows=1)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ManifestError(f"{path}: not a CSV table: {str(error).strip()}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not a CSV table: {str(error).strip()}") from error
    table.columns = _header(path, head.iloc[0].tolist(), table.columns.tolist(), required)
    # Blanks around them make one patient two. Files may begin or end with one.
    for column in table.columns.difference([*FILE_COLUMNS, required[0]]).union(["slide_id"]):
        if column in table:
            table[column] = table[column].str.strip()
    if table.empty:
        raise ManifestError(f"{path}: the manifest is empty; it needs at least one row")
    return table


def _header(
    path: Path, head: Sequence[str], named: Sequence[str], required: Sequence[str]
) -> list[str]:
    """Names of columns, once none of them can be taken for another."""
    # Pandas names columns that have no name, and the second of two that have the same.
    columns = [given.strip() or name for given, name in zip(head, named, strict=True)]
    twice = [name for i, name in enumerate(columns) if name in columns[:i]]
    if twice:
        raise ManifestError(f"{path}: two columns are called {twice[0]!r}; keep one")
    missing = [name for name in required if name not in columns]
    got = f"got {', '.join(columns)}"
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if missing and len(columns) == 1 and mark in columns[0]:
            got = f"cells are separated by {word}: save it with commas"
    if missing:
        raise ManifestError(f"{path}: column {missing[0]!r} is missing; {got}")
    meant = set(KNOWN).union(KNOWN_OF_SLIDES if "slide_id" in required else ()) - set(columns)
    if "path" not in required:  # another column holds it
        meant.discard("path")
    for name in columns:
        if name.lower() in meant and name not in required:
            raise ManifestError(f"{path}: column {name!r} must be called {name.lower()!r}")
    return columns


def _check_filled(path: str | Path, table: pd.DataFrame, column: str) -> None:
    empty = table.index[table[column].str.strip() == ""]
    if len(empty):
        raise ManifestError(f"{path}: row {_line(empty[0])} has no {column}")


def _resolve(
    path: str | Path,
    table: pd.DataFrame,
    column: str,
    root: str | Path | None,
    files: bool = True,
) -> None:
    """Make the paths of ``column`` absolute, and refuse files that are not there.

    URLs stay as they are; what they name is found out when it is fetched.
    """
    folder = Path(path).parent if root is None else root
    try:
        table[column] = [_beside(folder, name) if name else "" for name in table[column]]
    except ValueError as error:
        raise ManifestError(f"{path}: {error}") from error
    there = {name: not files or is_url(name) or _is_there(name) for name in table[column].unique()}
    lost = [(i, name) for i, name in table[column].items() if not there[name]]
    if lost:
        shown = ", ".join(f"{name} (row {_line(i)})" for i, name in lost[:_SHOWN])
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        raise ManifestError(
            f"{path}: {len(lost)} of {len(table)} files are missing: {shown}{more};"
            " restore them, remove the rows, or say where they are with root"
        )


def _beside(folder: str | Path, name: str) -> str:
    """A file's path or URL, of a name that is relative to a folder or to a URL."""
    if is_url(name):
        return name
    if "://" in name:  # file:///slides/a.svs
        name = str(local_path(name))
    if is_url(folder) and not Path(name).is_absolute():
        return f"{str(folder).rstrip('/')}/{name}"
    return str(Path(folder) / name)  # which an absolute name is by itself


def _is_there(name: str) -> bool:
    """Whether a file is; ``images.npz#name`` is one array of a file."""
    # Of a manifest's hundreds of thousands of files pathlib would take three times as long.
    is_file = os.path.isfile
    return not name or is_file(name) or ("#" in name and is_file(name.rsplit("#", 1)[0]))


def _check_splits(path: str | Path, table: pd.DataFrame) -> None:
    unknown = table.index[~table["split"].isin(SPLITS)]
    if len(unknown):
        raise ManifestError(
            f"{path}: row {_line(unknown[0])} has split {table['split'][unknown[0]]!r};"
            f" wanted one of {', '.join(SPLITS)}"
        )
    check_apart(path, table, [name for name in SOURCES if name in table])
    _check_apart(path, table, image_names(table), "path")


def _check_labels(path: str | Path, table: pd.DataFrame) -> None:
    names = image_names(table)
    again = table[names.duplicated(keep=False)]
    kinds = again.groupby(names[again.index], sort=False)["label"].nunique()
    if (kinds > 1).any():
        name = kinds.index[kinds > 1][0]
        rows = again.index[names[again.index] == name]
        labels = " and ".join(f"{again['label'][i]!r} (row {_line(i)})" for i in rows[:_SHOWN])
        raise ManifestError(f"{path}: {name} is {labels}; keep one label an image")


def check_apart(path: str | Path, table: pd.DataFrame, groups: Sequence[str]) -> None:
    """Refuse a table in which some patient, or other group, is in more than one split.

    Rows that leave the group empty are nobody's.

    Args:
        path: the manifest, for the message.
        table: its rows, with ``split``.
        groups: columns whose values must stay together.

    Raises:
        LeakageError: naming the value, its splits and their rows.
    """
    for group in groups:
        _check_apart(path, table, table[group], group)


def _check_apart(path: str | Path, table: pd.DataFrame, owner: pd.Series, what: str) -> None:
    known = owner[(owner != "") & owner.duplicated(keep=False)]
    split = table["split"][known.index]
    shared = split.groupby(known).nunique()
    shared = shared[shared > 1]
    if not len(shared):
        return
    value = shared.index[0]
    rows = {
        name: split.index[(known == value) & (split == name)][0]
        for name in SPLITS
        if ((known == value) & (split == name)).any()
    }
    where = " and ".join(f"{name} (row {_line(i)})" for name, i in rows.items())
    raise LeakageError(
        f"{path}: {len(shared)} values of {what} are in more than one split, e.g. {value!r} in"
        f" {where}; put all rows of one {what} into one split, as `pathology data split` does"
    )
