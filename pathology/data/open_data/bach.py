"""BACH, the ICIAR 2018 challenge: 400 microscopy images of breast tissue.

Aresta et al. 2019; https://zenodo.org/records/3632035. ``Photos/{Benign,InSitu,Invasive,Normal}``
hold 100 images each, ``b001.tif`` and so on, 2048 x 1536 px at 0.42 um; ``WSI`` holds slides.
"""

import re
from pathlib import Path

import pandas as pd

from pathology.data.open_data.folders import child, files_below, here_or_below, names
from pathology.data.open_data.open_set import (
    Found,
    Licence,
    OpenSet,
    Problem,
    count_problems,
    tile_table,
)

PREFIXES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
IMAGES = 100
# kaiko-ai/eva's validation part: places among all 400 images sorted by class and name, first and
# one past the last, chosen so that no patient is on both sides.
VALIDATION = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))


def _photos(folder: Path) -> Path | None:
    for home in (folder, here_or_below(folder, "ICIAR2018_BACH_Challenge")):
        if home is not None and (photos := here_or_below(home, "Photos")):
            return photos
    return None


def _recognise(folder: Path) -> str:
    photos = _photos(folder)
    found = [name for name in PREFIXES if photos and child(photos, name)]
    return f"Photos of {', '.join(found)}" if len(found) > 1 else ""


def _read(folder: Path) -> Found:
    photos = _photos(folder)
    assert photos is not None
    rows, problems = [], []
    for label, prefix in PREFIXES.items():
        home = child(photos, label)
        if home is None:
            problems.append(Problem(f"class folder Photos/{label} is missing", (), True))
            continue
        files = files_below(home, (".tif", ".tiff"))
        strangers = [p for p in files if not re.fullmatch(rf"{prefix}\d+", p.stem.lower())]
        if strangers:
            what = f"files in {label} that are not called {prefix}001.tif and so on"
            problems.append(Problem(what, names(strangers, folder)))
        rows += [{"path": str(p), "label": label} for p in files]
    table = tile_table(rows)
    problems += count_problems(table, "label", dict.fromkeys(PREFIXES, IMAGES), "images")
    notes = [
        "images are 2048 x 1536 px, and one label is for all of it: cut them yourself, or train"
        " with --data.crop centre, which leaves away a quarter at the sides",
        "patient ids are not in the archive; a split at random mixes patients",
    ]
    if (wsi := child(photos.parent, "WSI")) is not None:
        notes.append(f"the slides in {wsi.name} are another task and are not listed")
    return Found(table, tuple(PREFIXES), problems, notes, (2048, 1536))


def _propose(table: pd.DataFrame) -> "pd.Series[str]":
    # By the number in the name rather than the place in a list, which a missing file would shift.
    order = {label: 100 * i for i, label in enumerate(PREFIXES)}
    number = table["path"].map(lambda path: int(Path(path).stem.lstrip("biesnvBIESNV")) - 1)
    place = table["label"].map(order) + number
    is_val = place.map(lambda i: any(first <= i < end for first, end in VALIDATION))
    return pd.Series("train", table.index).mask(is_val, "val")


BACH = OpenSet(
    name="bach",
    title="BACH (ICIAR 2018): breast tissue, 4 classes, 400 microscopy images",
    kind="tiles",
    licence=Licence(
        "CC BY-NC-ND 4.0", False, "Aresta et al. 2019, doi:10.1016/j.media.2019.05.010"
    ),
    source="https://zenodo.org/records/3632035",
    size="10.4 GB",
    split="none is published with labels",
    recognise=_recognise,
    read=_read,
    proposal="268 to train and 132 to validate by patient, as kaiko-ai/eva does",
    propose=_propose,
)
