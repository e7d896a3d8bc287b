"""A table of slides, ``slide_id, path, ...``: this project's own kind of manifest."""

import json
from pathlib import Path

import pandas as pd

from pathology.annotations import read_classes
from pathology.data.manifest import SPLITS
from pathology.data.open_data.csv_table import find_csv
from pathology.data.open_data.open_set import Found, OpenSet, Problem, leaking, read_table
from pathology.errors import ManifestError


def _recognise(folder: Path) -> str:
    path = find_csv(folder, ("slides.csv",))
    if path is None:
        return ""
    try:
        table = read_table(path, ("slide_id", "path"))
    except ManifestError:
        return ""
    # Tiles name their slide too, but many of them the same.
    is_slides = "index" not in table and len(table) and table["slide_id"].is_unique
    return f"{path.name} lists {len(table):,} slides" if is_slides else ""


def _read(folder: Path) -> Found:
    path = find_csv(folder, ("slides.csv",))
    assert path is not None
    table = read_table(path, ("slide_id", "path"))
    problems = []
    for column in ("path", "regions"):
        if column not in table:
            continue
        files = [str(path.parent / name) if name else "" for name in table[column]]
        lost = [file for file in files if file and not Path(file).is_file()]
        if lost:
            what = f"found {len(table) - len(lost):,} of {len(table):,} files of column {column}"
            problems.append(Problem(what, tuple(lost), True))
        table[column] = ["" if file in set(lost) else file for file in files]
    if "split" in table:
        strange = table.loc[~table["split"].isin(SPLITS), "slide_id"]
        if len(strange):
            what = f"slides whose split is none of {', '.join(SPLITS)}"
            problems.append(Problem(what, tuple(strange)))
        if "patient_id" in table:
            problems += leaking(table)
    notes = []
    if "patient_id" not in table:
        notes.append("no column patient_id: a split at random may put a patient into two parts")
    classes = path.parent / "regions.json"
    if table.get("regions", pd.Series(dtype=str)).any() and not classes.is_file():
        what = "regions.json is missing: nobody knows which regions make which class"
        problems.append(Problem(what, (), True))
    table = table[table["path"] != ""].reset_index(drop=True)
    labels = tuple(sorted(set(table["label"]) - {""})) if "label" in table else ()
    return Found(table, labels, problems, notes, regions=lambda _: _classes(classes))


def _classes(path: Path) -> dict[str, object]:
    """What is in a ``regions.json``, once it has been found to be one."""
    if not path.is_file():
        return {}
    read_classes(path)
    found: dict[str, object] = json.loads(path.read_text("utf-8"))
    return found


SLIDE_TABLE = OpenSet(
    name="slides",
    title="any CSV table of slides: slide_id, path and what is known of them",
    kind="slides",
    licence=None,
    source="yours",
    size="any",
    split="column split, if there is one",
    recognise=_recognise,
    read=_read,
)
