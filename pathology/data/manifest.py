"""Manifests: the tables that say which files there are, what they show and which split they are in.

Two kinds, both CSV with a header:

* of tiles: ``path, label, split`` -- one image file a row;
* of slides: ``slide_id, path, split`` and, where known, ``patient_id, label, mpp, regions``.

Paths are relative to the manifest's own folder unless a root is given. A manifest is checked as a
whole before anything long starts; what is wrong with it is said in one line, with the row.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from pathology.errors import LeakageError, ManifestError

SPLITS = ("train", "val", "test")
_SHOWN = 3


def read_tile_manifest(
    path: str | Path, *, root: str | Path | None = None, path_column: str = "path"
) -> pd.DataFrame:
    """Read and check a manifest of image files.

    Args:
        path: the CSV file.
        root: folder that image paths are relative to; the manifest's own when omitted.
        path_column: name of the column that holds the image's path.

    Returns:
        One row per image: ``path`` (absolute), ``label``, ``split`` and whatever else it holds.

    Raises:
        ManifestError: unreadable, empty, a column, file or label missing, an unknown split.
        LeakageError: a patient in more than one split.
    """
    table = _read(path, required=(path_column, "label", "split"))
    table = table.rename(columns={path_column: "path"})
    _check_filled(path, table, "label")
    _resolve(path, table, "path", root)
    _check_splits(path, table)
    return table


def read_slide_manifest(path: str | Path, *, root: str | Path | None = None) -> pd.DataFrame:
    """Read and check a manifest of slides.

    Args:
        path: the CSV file.
        root: folder that paths are relative to; the manifest's own when omitted.

    Returns:
        One row per slide: ``slide_id``, ``path`` and, where the file has them, ``split``,
        ``patient_id``, ``label``, ``mpp`` (float, NaN where empty) and ``regions`` (absolute).

    Raises:
        ManifestError: unreadable, empty, a column or file missing, a slide twice.
        LeakageError: a patient in more than one split.
    """
    table = _read(path, required=("slide_id", "path"))
    _check_filled(path, table, "slide_id")
    twice = table.index[table["slide_id"].duplicated()]
    if len(twice):
        raise ManifestError(
            f"{path}: slide_id {table['slide_id'][twice[0]]!r} stands in more than one row"
            f" (row {_line(twice[0])}); give every slide its own"
        )
    _resolve(path, table, "path", root)
    if "regions" in table:
        _resolve(path, table, "regions", root)
    if "mpp" in table:
        table["mpp"] = [_positive(path, i, cell) for i, cell in table["mpp"].items()]
    if "split" in table:
        _check_splits(path, table)
    return table


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


def _read(path: str | Path, required: tuple[str, ...]) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; give the path of a CSV file")
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would be cut, or shift every column.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ManifestError(f"{path}: not a CSV table: {str(error).strip()}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not a CSV table: {str(error).strip()}") from error
    missing = [column for column in required if column not in table]
    if missing:
        raise ManifestError(
            f"{path}: column {missing[0]!r} is missing; got {', '.join(table.columns)}"
        )
    if table.empty:
        raise ManifestError(f"{path}: the manifest is empty; it needs at least one row")
    return table


def _check_filled(path: str | Path, table: pd.DataFrame, column: str) -> None:
    empty = table.index[table[column].str.strip() == ""]
    if len(empty):
        raise ManifestError(f"{path}: row {_line(empty[0])} has no {column}")


def _resolve(path: str | Path, table: pd.DataFrame, column: str, root: str | Path | None) -> None:
    """Make the paths of ``column`` absolute, and refuse files that are not there."""
    folder = Path(root) if root is not None else Path(path).parent
    table[column] = [str(folder / name) if name else "" for name in table[column]]
    lost = [(i, name) for i, name in table[column].items() if name and not Path(name).is_file()]
    if lost:
        shown = ", ".join(f"{name} (row {_line(i)})" for i, name in lost[:_SHOWN])
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        raise ManifestError(
            f"{path}: {len(lost)} of {len(table)} files are missing: {shown}{more};"
            " restore them, remove the rows, or say where they are with root"
        )


def _check_splits(path: str | Path, table: pd.DataFrame) -> None:
    unknown = table.index[~table["split"].isin(SPLITS)]
    if len(unknown):
        raise ManifestError(
            f"{path}: row {_line(unknown[0])} has split {table['split'][unknown[0]]!r};"
            f" wanted one of {', '.join(SPLITS)}"
        )
    if "patient_id" not in table:
        return
    known = table[table["patient_id"] != ""]
    splits = known.groupby("patient_id")["split"].agg(lambda s: sorted(set(s)))
    shared = splits[splits.map(len) > 1]
    if len(shared):
        raise LeakageError(
            f"{path}: {len(shared)} patients are in more than one split, e.g."
            f" {shared.index[0]!r} in {' and '.join(shared.iloc[0])};"
            " put all of a patient's rows into one split"
        )
