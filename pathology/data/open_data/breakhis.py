"""BreakHis: 7,909 microscopy images of breast tumours of 81 patients, at four magnifications.

Spanhol et al. 2016; https://web.inf.ufpr.br/vri/databases. A file's name holds all there is to
know: ``SOB_B_TA-14-4659-40-001.png`` is a biopsy (SOB), benign (B), tubular adenoma (TA), of 2014,
of patient 4659, at 40X.
"""

import re
from pathlib import Path

import pandas as pd

from pathology.data.open_data.folders import files_below, here_or_below, names
from pathology.data.open_data.open_set import (
    Found,
    Licence,
    OpenSet,
    Problem,
    count_problems,
    tile_table,
)

BENIGN = ("A", "F", "PT", "TA")
MALIGNANT = ("DC", "LC", "MC", "PC")
IMAGES = {"40X": 1_995, "100X": 2_081, "200X": 2_013, "400X": 1_820}
GROUPS = {"benign": 2_480, "malignant": 5_429}
# 82 are published, by class: 24 benign and 58 malignant, and 13412 is in two classes.
PATIENTS = 81
# kaiko-ai/eva's validation patients; all others train.
VALIDATION = frozenset(
    (
        "18842D", "16184", "8168", "4372", "16716", "9146", "21978AB", "6241", "17901", "12465",
        "3411F", "18842", "2980", "15570C", "2985", "13413", "3909", "14134E", "2523", "19854C",
        "19979", "29960CD", "21998AB", "29960AB", "14946",
    )
)  # fmt: skip
_NAME = re.compile(r"SOB_([BM])_([A-Z]+)-(\d+)-([0-9A-Z]+)-(40|100|200|400)-(\d+)", re.IGNORECASE)


def _home(folder: Path) -> Path | None:
    """The folder that images are looked for in."""
    home = here_or_below(folder, "BreaKHis_v1")
    if home is None and any(here_or_below(folder, n) for n in ("histology_slides", "breast")):
        home = folder
    return home


def _recognise(folder: Path) -> str:
    home = _home(folder)
    if home is None:
        return ""
    count = sum(bool(_NAME.fullmatch(p.stem)) for p in files_below(home, (".png",)))
    return f"{count:,} images called SOB_*" if count else ""


def _read(folder: Path) -> Found:
    home = _home(folder)
    assert home is not None
    rows, strangers, misplaced = [], [], []
    for path in files_below(home):
        match = _NAME.fullmatch(path.stem)
        if match is None or match[2].upper() not in BENIGN + MALIGNANT:
            strangers.append(path)
            continue
        label, group = match[2].upper(), {"B": "benign", "M": "malignant"}[match[1].upper()]
        magnification = f"{match[5]}X"
        folders = {part.upper() for part in path.relative_to(home).parts[:-1]}
        if (folders & set(IMAGES)) - {magnification} or (folders & {"BENIGN", "MALIGNANT"}) - {
            group.upper()
        }:
            misplaced.append(path)
        rows.append(
            {
                "path": str(path),
                "label": label,
                "patient_id": match[4].upper(),
                "group": group,
                "magnification": magnification,
            }
        )
    table = tile_table(rows, ("path", "label", "patient_id", "group", "magnification"))
    problems = []
    if strangers:
        what = "images whose names tell no class and patient"
        problems.append(Problem(what, names(strangers, folder)))
    if misplaced:
        what = "images in a folder of another magnification or group than their name says"
        problems.append(Problem(what, names(misplaced, folder)))
    problems += count_problems(table, "magnification", IMAGES, "images")
    problems += count_problems(table, "group", GROUPS, "images")
    notes = []
    for column, wanted in (("magnification", IMAGES), ("group", GROUPS)):
        absent = [name for name in wanted if name not in set(table[column])]
        if absent:
            problems.append(Problem(f"no image of {column} {', '.join(absent)}", (), True))
    patients = table["patient_id"].nunique()
    if patients != PATIENTS:
        problems.append(
            Problem(f"found {patients} of {PATIENTS} patients", (), patients < PATIENTS)
        )
    kinds = table.groupby("patient_id")["label"].agg(lambda labels: sorted(set(labels)))
    notes += [
        f"patient {patient} is in {len(labels)} classes, {' and '.join(labels)}, with the same"
        " tissue under both: leave it out, or keep it on one side of a split"
        for patient, labels in kinds.items()
        if len(labels) > 1
    ]
    notes.append(
        "the same tissue is there at four magnifications: choose one, --where magnification=40X"
    )
    notes.append(
        "images are 700 x 460 px, some a little less, and one label is for all of it: cut them"
        " yourself, or train with --data.crop centre, which leaves away a third at the sides"
    )
    notes.append(
        "ids that differ in their letters alone, such as 15570 and 15570C, are patients of their"
        " own, as published; whether they are of one person is not known"
    )
    return Found(table, BENIGN + MALIGNANT, problems, notes)


def _propose(table: pd.DataFrame) -> "pd.Series[str]":
    return pd.Series("train", table.index).mask(table["patient_id"].isin(VALIDATION), "val")


BREAKHIS = OpenSet(
    name="breakhis",
    title="BreakHis: breast tumours, 8 classes, 81 patients, 40X to 400X",
    kind="tiles",
    licence=Licence(
        "CC BY 4.0 as others state it; its publisher asks to register",
        None,
        "Spanhol et al. 2016, doi:10.1109/TBME.2015.2496264",
    ),
    source="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
    size="4 GB",
    split="none is published that everyone uses",
    recognise=_recognise,
    read=_read,
    proposal="25 patients to validate, as kaiko-ai/eva does",
    propose=_propose,
)
