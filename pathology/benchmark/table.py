"""The table of what was measured: a CSV row per comparison, one setting per file."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pathology.errors import OutputError, StampMismatchError
from pathology.outputs import complete_file, writable_folder

Row = dict[str, str]
Key = tuple[str, ...]

KEY = ("model", "measure", "classes", "mode", "layout")
SETTING = ("batch", "size_px", "threads", "device", "machine", "torch")
FIELDS = (
    "model", "peer", "measure", "classes", "depth", "mode", "layout", "dtype", *SETTING,
    "unit", "repetitions", "ours", "theirs", "ours_per_image", "theirs_per_image",
    "ratio", "ratio_low", "ratio_high",
)  # fmt: skip
"""Columns. ``ours`` and ``theirs`` are for a whole batch, in ``unit``; ``ratio`` has quartiles."""


def key(row: Mapping[str, str]) -> Key:
    """What a row is of; no two rows of a file are of the same."""
    return tuple(row[field] for field in KEY)


def read_rows(path: Path) -> dict[Key, Row]:
    """Rows of a file, in order; none where there is no file.

    Raises:
        OutputError: it is not such a table.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{path}: cannot be read as a table ({error}); choose another") from error
    if tuple(reader.fieldnames or ()) != FIELDS or any(None in row.values() for row in rows):
        raise OutputError(f"{path}: has other columns than a table of speed; choose another --out")
    return {key(row): row for row in rows}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """All rows, or the file as it was."""
    with complete_file(path) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def check_writable(path: Path) -> None:
    """Refuse a place for a table before anything is measured.

    Raises:
        OutputError: it is a folder, or in one that cannot be written.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; --out names the CSV itself")
    writable_folder(path.parent)


def check_setting(path: Path, rows: Iterable[Row], setting: Callable[[str], Row]) -> None:
    """Refuse to mix rows of two settings in one file.

    Args:
        path: of the file, for the message.
        rows: that it has.
        setting: of this run, by model.

    Raises:
        StampMismatchError: naming row and field.
    """
    for row in rows:
        for field, wanted in setting(row["model"]).items():
            if row[field] != wanted:
                raise StampMismatchError(
                    f"{path}: {row['model']} has {field} {row[field]}, this run {wanted};"
                    " choose another --out"
                )
