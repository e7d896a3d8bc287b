"""Any CSV table of image files, whatever its columns are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from pathology.data.image_files import ARRAY_SUFFIXES, IMAGE_SUFFIXES
from pathology.data.open_data.folders import files_in, subfolders
from pathology.data.open_data.image_folder import SPLIT_NAMES
from pathology.data.open_data.open_set import (
    AT_RANDOM,
    Found,
    OpenSet,
    Problem,
    leaking,
    read_table,
)
from pathology.errors import ManifestError

PATH = (
    "path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "img_path",
    "image_name", "image_id", "id",
)  # fmt: skip
LABEL = ("label", "class", "class_name", "target", "category", "diagnosis")
SPLIT = ("split", "partition", "subset", "fold", "set")
PATIENT = ("patient_id", "patient", "patientid", "case_id", "case", "subject", "subject_id")
SITE = ("site", "center", "centre", "hospital", "institution")
_WELL_KNOWN = ("manifest.csv", "tiles.csv", "labels.csv", "metadata.csv")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant, where their names do not tell.

    Args:
        path: of image files, or their names without suffix.
        label: of classes.
        split: of train, val and test.
        patient: of patients.
    """

    path: str = ""
    label: str = ""
    split: str = ""
    patient: str = ""


def find_csv(folder: Path, known: Sequence[str] = _WELL_KNOWN) -> Path | None:
    """The table: this file, a well-known name in the folder, or its only CSV file."""
    if folder.is_file():
        return folder if folder.suffix.lower() == ".csv" else None
    if not folder.is_dir():
        return None
    found = {p.name.lower(): p for p in files_in(folder) if p.suffix.lower() == ".csv"}
    named = [found[name] for name in known if name in found]
    return named[0] if named else (*found.values(),)[0] if len(found) == 1 else None


def _recognise(columns: Columns, folder: Path) -> str:
    path = find_csv(folder)
    if path is None:
        return ""
    try:
        table = read_table(path, ())
    except ManifestError:
        return ""
    name = columns.path or _pick(table, PATH)
    return f"{path.name} lists files in column {name}" if name else ""


def _pick(table: pd.DataFrame, names: tuple[str, ...]) -> str:
    """The column that has one of these names, whatever the case."""
    found = {column.strip().lower(): column for column in table.columns}
    return next((found[name] for name in names if name in found), "")


def _column(path: Path, table: pd.DataFrame, given: str, names: tuple[str, ...]) -> str:
    if given and given not in table:
        raise ManifestError(f"{path}: no column {given!r}; got {', '.join(table.columns)}")
    return given or _pick(table, names)


def _places(table: Path) -> list[Path]:
    """Where files may lie: beside the table, and in the folders there."""
    return [table.parent, *subfolders(table.parent)]


def _locate(table: Path, names: "pd.Series[str]") -> list[str]:
    """Files by their name in the table, empty where there is none.

    All are looked for in one place, the one that has most: a name may be that of an image and of
    its mask.
    """
    best: list[str] = [""] * len(names)
    for place in _places(table):
        here = [_file(place, name) for name in names]
        if sum(map(bool, here)) > sum(map(bool, best)):
            best = here
        if all(best):
            break
    return best


def _file(place: Path, name: str) -> str:
    if not name:
        return ""
    path = place / name
    file = Path(name.rpartition("#")[0]) if "#" in name else path
    if path.is_file() or (place / file).is_file():
        return str(path)
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *ARRAY_SUFFIXES):
        return ""
    return next((str(path) + s for s in IMAGE_SUFFIXES if Path(str(path) + s).is_file()), "")


def _read(columns: Columns, folder: Path) -> Found:
    path = find_csv(folder)
    assert path is not None
    table = read_table(path, ())
    if table.empty:
        raise ManifestError(f"{path}: the table is empty; it needs at least one row")
    file = _column(path, table, columns.path, PATH)
    label = _column(path, table, columns.label, LABEL)
    split = _column(path, table, columns.split, SPLIT)
    patient = _column(path, table, columns.patient, PATIENT)
    site = _column(path, table, "", SITE)
    if not label:
        count = table.nunique()
        others = [c for c in table.columns if c not in (file, split, patient)]
        few = [c for c in others if 2 <= count[c] <= max(2, len(table) // 5)]
        raise ManifestError(
            f"{path}: which column is the label? Say it with --label-column, one of"
            f" {', '.join(few) or 'those in the file'}"
        )
    problems, notes = [], []
    unlabelled = table.index[table[label].str.strip() == ""]
    if len(unlabelled):
        lost_rows = tuple(f"row {i + 2}" for i in unlabelled)
        problems.append(Problem(f"rows without {label}", lost_rows, True))
    # A column that already has the name of one that is chosen gives way to it.
    named = {
        name: new
        for name, new in ((label, "label"), (patient, "patient_id"), (site, "site"))
        if name
    }
    gone = {file, split, "path", "split", *named.values()} - set(named)
    result = table.drop(columns=[c for c in table.columns if c in gone]).rename(columns=named)
    result.insert(0, "path", _locate(path, table[file]))
    if split:
        parts = table[split].str.strip().str.lower().map(SPLIT_NAMES)
        if parts.isna().all() and not columns.split and split.lower() != "split":
            notes.append(f"column {split} does not name train, val and test and is kept as it is")
            result[split] = table[split]
        else:
            strange = table.index[parts.isna()]
            if len(strange):
                what = f"rows whose {split} is none of train, val and test"
                problems.append(
                    Problem(what, tuple(f"row {i + 2} ({table[split][i]!r})" for i in strange))
                )
            result["split"] = parts.fillna("")
    lost = result["path"] == ""
    if lost.any():
        what = f"found {int((~lost).sum()):,} of {len(table):,} files that {path.name} lists"
        problems.append(Problem(what, tuple(table[file][lost]), True))
        result = result[~lost]
    places = result["path"] + ("#" + table["index"] if "index" in result else "")
    twice = places.duplicated()
    if twice.any():
        problems.append(Problem("files that are listed twice", tuple(result["path"][twice])))
    if "split" in result and "patient_id" in result:
        problems += leaking(result)
    if "patient_id" not in result:
        notes.append(f"no column tells patients: {AT_RANDOM}")
    if label != "label":
        notes.append(f"labels are those of column {label}")
    result = result[result["label"].str.strip() != ""].reset_index(drop=True)
    return Found(result, tuple(sorted(set(result["label"]))), problems, notes)


def csv_table(columns: Columns) -> OpenSet:
    """The layout of a table whose columns are ``columns``."""
    return OpenSet(
        name="csv",
        title="any CSV table of image files and their labels",
        kind="tiles",
        licence=None,
        source="yours",
        size="any",
        split="a column that names train, val and test, if there is one",
        recognise=partial(_recognise, columns),
        read=partial(_read, columns),
    )
