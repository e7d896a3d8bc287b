"""CAMELYON17: five lymph nodes each of 200 patients of five centres.

Bandi et al. 2019; data set Litjens et al. 2018. Slides are ``patient_000_node_0.tif``, in folders
of centres or of patients. ``stages.csv`` (older copies ``stage_labels.csv``) has the columns
``patient, stage``: a row ``patient_000.zip,pN0`` for a patient and ``patient_000_node_0.tif,itc``
for a slide. Fifty slides have lesions drawn in ASAP XML.
"""

import re
from pathlib import Path

import pandas as pd

from pathology.data.open_data.folders import files_below, names
from pathology.data.open_data.open_set import Found, Licence, OpenSet, Problem, read_table
from pathology.data.open_data.rest import Rest

CLASSES = ("negative", "itc", "micro", "macro")
PATIENTS = {"train": 100, "test": 100}
FIRST_TEST = 100  # number of the first patient of the test part
# As commonly stated: ``normal`` encloses tissue that is not tumour within a lesion.
REGIONS = {"tumour": {"include": ["metastases"], "exclude": ["normal"]}}
# Isolated tumour cells are not drawn exhaustively, so of slides with them nothing is known.
REST = Rest(
    "normal",
    lambda table: (
        (table["label"] == "negative")
        | (table["label"].isin(("micro", "macro")) & (table["regions"] != ""))
    ),
)
NODES, CENTRE_PATIENTS, ANNOTATED = 5, 20, 50
STAGES = ("stages.csv", "stage_labels.csv")
_SLIDE = re.compile(r"(patient_(\d{3}))_node_(\d)", re.IGNORECASE)
_CENTRE = re.compile(r"center_?(\d)", re.IGNORECASE)


def _slides(folder: Path) -> list[Path]:
    files = files_below(folder, (".tif", ".tiff"))
    return [
        path
        for path in files
        if _SLIDE.fullmatch(path.stem)
        and not re.search("mask|evaluation|background", path.relative_to(folder).parent.as_posix())
    ]


def _recognise(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    count = len(_slides(folder))
    return f"{count} slides called patient_*_node_*" if count else ""


def _centre(path: Path, patient: int) -> str:
    """The folder says it; else training patients are in blocks of 20 per centre."""
    for part in reversed(path.parts[:-1]):
        if match := _CENTRE.fullmatch(part):
            return f"center_{match[1]}"
    return f"center_{patient // CENTRE_PATIENTS}" if patient < FIRST_TEST else ""


def _stages(folder: Path) -> tuple[dict[str, str], list[Problem]]:
    tables = [p for p in files_below(folder, (".csv",)) if p.name.lower() in STAGES]
    if not tables:
        return {}, [Problem("stages.csv is missing: slides have no label", (), True)]
    table = read_table(tables[0], ("patient", "stage"))
    return {
        Path(name.strip()).stem.lower(): stage.strip()
        for name, stage in zip(table["patient"], table["stage"], strict=True)
    }, []


def _read(folder: Path) -> Found:
    slides = _slides(folder)
    stages, problems = _stages(folder)
    lesions = {
        p.stem.lower(): p for p in files_below(folder, (".xml",)) if _SLIDE.fullmatch(p.stem)
    }
    rows: list[dict[str, str]] = []
    for path in slides:
        match = _SLIDE.fullmatch(path.stem)
        assert match is not None
        name, patient = path.stem.lower(), match[1].lower()
        lesion = lesions.get(name)
        rows.append(
            {
                "slide_id": name,
                "path": str(path),
                "label": stages.get(name, "").lower(),
                "split": "train" if int(match[2]) < FIRST_TEST else "test",
                "patient_id": patient,
                "site": _centre(path, int(match[2])),
                "stage": stages.get(patient, ""),
                "regions": str(lesion) if lesion else "",
            }
        )
    table = pd.DataFrame(rows)
    twice = table["slide_id"].duplicated(keep="first")
    if twice.any():
        problems.append(
            Problem("slides that are there twice", names(map(Path, table["path"][twice]), folder))
        )
        table = table[~twice].reset_index(drop=True)
    notes = []
    for split, wanted in PATIENTS.items():
        part = table[table["split"] == split]
        count = part["patient_id"].nunique()
        if 0 < count != wanted:
            problems.append(
                Problem(f"{split}: found {count} of {wanted} patients", (), count < wanted)
            )
        elif not count:
            notes.append(f"no {split} slides are here")
        elif split == "test" and (part["label"] == "").all():
            notes.append("labels of the test part are not published; its label is empty")
    nodes = table.groupby("patient_id").size()
    short = nodes[nodes != NODES]
    if len(short):
        listed = tuple(f"{patient!s} ({short[patient]})" for patient in short.index)
        problems.append(Problem(f"patients without {NODES} slides", listed, True))
    train = table[table["split"] == "train"]
    unknown = train[~train["label"].isin(CLASSES)]
    if stages and len(unknown):
        listed = tuple(
            f"{name} ({label or 'none'})"
            for name, label in zip(unknown["slide_id"], unknown["label"], strict=True)
        )
        what = f"training slides whose label is none of {', '.join(CLASSES)}"
        problems.append(Problem(what, listed))
    drawn = int((table["regions"] != "").sum())
    if drawn < ANNOTATED and len(train):
        packed = files_below(folder, ("lesion_annotations.zip",))
        hint = f"; unpack {names(packed, folder)[0]}" if packed else ""
        problems.append(
            Problem(f"found {drawn} of {ANNOTATED} slides' lesion XML files{hint}", (), True)
        )
    notes.append("tiles outside of the lesions get no label, or normal by --rest")
    notes.append("isolated tumour cells (itc) are not drawn exhaustively")
    notes.append("split by patient, and by site (five centres) where a model must generalise")
    return Found(table, CLASSES, problems, notes, regions=lambda _: REGIONS, rest=REST)


CAMELYON17 = OpenSet(
    name="camelyon17",
    title="CAMELYON17: metastases in lymph nodes, five slides a patient, five centres",
    kind="slides",
    licence=Licence(
        "CC0", True, "Bandi et al. 2019, doi:10.1109/TMI.2018.2867350, and Litjens et al. 2018"
    ),
    source="https://registry.opendata.aws/camelyon/ or http://gigadb.org/dataset/100439",
    size="2.3 TB, as commonly stated",
    split="training (100 patients) and test (100, unlabelled); no validation part",
    recognise=_recognise,
    read=_read,
)
