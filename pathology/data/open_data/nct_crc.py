"""NCT-CRC-HE-100K, with and without colour normalisation, and CRC-VAL-HE-7K.

Kather, Halama, Marx: 100,000 histological images of human colorectal cancer and healthy tissue
(2018), https://zenodo.org/records/1214456. Folders of nine classes, ``ADI/ADI-AAAFLCLY.tif``,
224 px at 0.5 um.
"""

from functools import partial
from pathlib import Path

from pathology.data.open_data.folders import child, files_below, here_or_below, names
from pathology.data.open_data.open_set import (
    Found,
    Licence,
    OpenSet,
    Problem,
    count_problems,
    tile_table,
)

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
NORMALISED = {"train": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}
PLAIN = {"train": "NCT-CRC-HE-100K-NONORM", "test": "CRC-VAL-HE-7K"}
TILES = {"train": 100_000, "test": 7_180}
CHECKSUMS = {  # of the archives; none is published with a source we know for NONORM
    "NCT-CRC-HE-100K.zip": "035777cf327776a71a05c95da6d6325f",
    "CRC-VAL-HE-7K.zip": "2fd1651b4f94ebd818ebf90ad2b6ce06",
}


def _parts(parts: dict[str, str], folder: Path) -> dict[str, Path]:
    found = {split: here_or_below(folder, name) for split, name in parts.items()}
    return {split: part for split, part in found.items() if part is not None}


def _recognise(parts: dict[str, str], folder: Path) -> str:
    found = _parts(parts, folder)
    if "train" not in found and (parts is PLAIN or "train" in _parts(PLAIN, folder)):
        return ""  # the test part is the same for both
    has_classes = [p for p in found.values() if any(child(p, name) for name in CLASSES)]
    return f"class folders in {', '.join(p.name for p in has_classes)}" if has_classes else ""


def _read(parts: dict[str, str], folder: Path) -> Found:
    rows, problems, notes = [], [], []
    found = _parts(parts, folder)
    for split, part in found.items():
        for label in CLASSES:
            home = child(part, label)
            if home is None:
                problems.append(Problem(f"{part.name}: class folder {label} is missing", (), True))
                continue
            files = files_below(home, (".tif", ".tiff"))
            strangers = [p for p in files if p.name.split("-")[0].upper() != label]
            if strangers:
                what = f"{part.name}: files in {label} that are named after another class"
                problems.append(Problem(what, names(strangers, folder)))
            rows += [{"path": str(p), "label": label, "split": split} for p in files]
    table = tile_table(rows)
    if rows:
        problems += count_problems(table, "split", {s: TILES[s] for s in found}, "tiles")
    absent = [name for split, name in parts.items() if split not in found]
    if absent:
        notes.append(f"{absent[0]} is not here; get it for the other half of the official split")
    notes.append(
        "tiles of the training part have no patient ids: a validation part cut from it shares"
        " patients with it, and its figures flatter"
    )
    if parts is NORMALISED:
        notes.append("colours were normalised (Macenko) before publication")
    archives = {
        path: md5 for name, md5 in CHECKSUMS.items() if (path := child(folder, name)) is not None
    }
    return Found(table, CLASSES, problems, notes, (224, 224), checksums=archives)


_LICENCE = Licence("CC BY 4.0", True, "Kather, Halama, Marx 2018, doi:10.5281/zenodo.1214456")
_SPLIT = "NCT-CRC-HE-100K to train, CRC-VAL-HE-7K (50 other patients) to test; no validation part"

NCT_CRC = OpenSet(
    name="nct-crc-he",
    title="NCT-CRC-HE-100K and CRC-VAL-HE-7K: colorectal tissue, 9 classes",
    kind="tiles",
    licence=_LICENCE,
    source="https://zenodo.org/records/1214456",
    size="11.7 GB and 0.8 GB",
    split=_SPLIT,
    recognise=partial(_recognise, NORMALISED),
    read=partial(_read, NORMALISED),
)

NCT_CRC_NONORM = OpenSet(
    name="nct-crc-he-nonorm",
    title="the same without colour normalisation, NCT-CRC-HE-100K-NONORM",
    kind="tiles",
    licence=_LICENCE,
    source="https://zenodo.org/records/1214456",
    size="11.7 GB and 0.8 GB",
    split=_SPLIT,
    recognise=partial(_recognise, PLAIN),
    read=partial(_read, PLAIN),
)
