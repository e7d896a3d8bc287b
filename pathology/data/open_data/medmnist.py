"""MedMNIST: sets of small images in one ``.npz`` each.

Yang et al. 2023; https://medmnist.com, files at https://zenodo.org/records/10519652. Each holds
``{train,val,test}_{images,labels}``; ``_64``, ``_128`` and ``_224`` in the name tell the side, 28
otherwise. Names of classes, numbers and checksums are those of the medmnist package.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pathology.data.image_files import array_length, image_size
from pathology.data.open_data.folders import files_in
from pathology.data.open_data.open_set import Found, Licence, OpenSet, Problem, count_problems
from pathology.errors import ManifestError

_CITE = "Yang et al. 2023, doi:10.1038/s41597-022-01721-8, and the set it is made from"
PARTS = ("train", "val", "test")
ARRAYS = tuple(f"{split}_{kind}" for split in PARTS for kind in ("images", "labels"))
SIDES = (28, 64, 128, 224)


@dataclass(frozen=True)
class _Facts:
    """Of one set: classes in the order of their numbers, tiles by split, MD5 by side."""

    classes: tuple[str, ...]
    tiles: tuple[int, int, int]
    checksums: tuple[str, str, str, str]
    note: str = ""


FACTS = {
    "pathmnist": _Facts(
        (
            "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
            "normal colon mucosa", "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        (89_996, 10_004, 7_180),
        (
            "a8b06965200029087d5bd730944a56c1", "55aa9c1e0525abe5a6b9d8343a507616",
            "ac42d08fb904d92c244187169d1fd1d9", "2c51a510bcdc9cf8ddb2af93af1eadec",
        ),
        "train and val are NCT-CRC-HE-100K cut at random, so they share patients; test is"
        " CRC-VAL-HE-7K",
    ),
    "bloodmnist": _Facts(
        (
            "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte",
            "monocyte", "neutrophil", "platelet",
        ),
        (11_959, 1_712, 3_421),
        (
            "7053d0359d879ad8a5505303e11de1dc", "2b94928a2ae4916078ca51e05b6b800b",
            "adace1e0ed228fccda1f39692059dd4c", "b718ff6835fcbdb22ba9eacccd7b2601",
        ),
        "split at random; who a cell is from is not published",
    ),
    "tissuemnist": _Facts(
        (
            "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
            "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
            "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
        ),
        (165_466, 23_640, 47_280),
        (
            "ebe78ee8b05294063de985d821c1c34b", "123ece2eba09d0aa5d698fda57103344",
            "61b955355d7425a89687b06cca3ce0c2", "b077128c4a949f0a4eb01517f9037b9c",
        ),
        "split at random from three specimens; fluorescence, in grey",
    ),
    "dermamnist": _Facts(
        (
            "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
            "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
            "vascular lesions",
        ),
        (7_007, 1_003, 2_005),
        (
            "0744692d530f8e62ec473284d019b0c7", "b70a2f5635c6199aeaa28c31d7202e1f",
            "2defd784463fa5243564e855ed717de1", "8974907d8e169bef5f5b96bc506ae45d",
        ),
        "lesions are shared between its splits",
    ),
}  # fmt: skip


def _arrays(path: Path) -> list[str]:
    """Names of the arrays in an ``.npz``; none where it is no such file."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def _name(path: Path) -> tuple[str, int]:
    """Set and side that a file's name tells."""
    stem = path.stem.lower()
    head, _, side = stem.rpartition("_")
    return (head, int(side)) if head and side in map(str, SIDES) else (stem, SIDES[0])


def _files(folder: Path) -> list[Path]:
    """Files of the family: by what they hold, or, where that cannot be read, by their name."""
    candidates = [folder] if folder.is_file() else files_in(folder)
    return [
        p
        for p in candidates
        if p.suffix.lower() == ".npz"
        and (_name(p)[0] in FACTS or len(set(ARRAYS) & set(_arrays(p))) >= 2)
    ]


def _recognise(folder: Path) -> str:
    files = _files(folder)
    return f"train, val and test arrays in {', '.join(p.name for p in files)}" if files else ""


def _read(folder: Path) -> Found:
    files = _files(folder)
    if len(files) > 1:
        raise ManifestError(
            f"{folder}: holds {', '.join(p.name for p in files)}; give the path of one of them"
        )
    path = files[0]
    name, side = _name(path)
    facts = FACTS.get(name)
    held = set(_arrays(path))
    if not held:
        return Found(_table([]), (), [Problem(f"{path.name}: not a readable .npz file")])
    problems = [
        Problem(f"{path.name}: array {array} is missing", (), True)
        for array in ARRAYS
        if array not in held
    ]
    parts, top = [], 0
    size = None
    for split in PARTS:
        if not {f"{split}_images", f"{split}_labels"} <= held:
            continue
        images = f"{path}#{split}_images"
        try:
            with np.load(path, allow_pickle=False) as file:
                labels = np.asarray(file[f"{split}_labels"])
            length, size = array_length(images), image_size(images, 0)
        except (ManifestError, OSError, ValueError) as error:
            problems.append(Problem(f"{split}: {error}"))
            continue
        if labels.size != len(labels):
            raise ManifestError(
                f"{path}: {labels.shape[-1]} labels an image; only one per image can be trained on"
            )
        if len(labels) != length:
            problems.append(Problem(f"{split}: {length:,} images but {len(labels):,} labels"))
            continue
        part = pd.DataFrame({"path": images, "index": np.arange(length), "split": split})
        part["number"] = labels.reshape(-1).astype(np.intp)
        top = max(top, int(part["number"].max()))
        parts.append(part)
    table = _table(parts)
    # Numbers are written with leading zeros, so that sorting them keeps their order.
    digits = len(str(top))
    classes = facts.classes if facts else tuple(f"{i:0{digits}d}" for i in range(top + 1))
    if len(classes) <= top:
        problems.append(
            Problem(f"label {top} is there, but {name} has {len(classes)} classes: another set?")
        )
        classes += tuple(str(i) for i in range(len(classes), top + 1))
    if parts:
        table["label"] = np.array(classes, dtype=object)[table.pop("number").astype(np.intp)]
    notes = ["no patient ids are published"]
    if facts:
        wanted = dict(zip(PARTS, facts.tiles, strict=True))
        problems += count_problems(table, "split", wanted, "images")
        notes = [facts.note] if facts.note else notes
        if size is not None and size != (side, side):
            problems.append(
                Problem(f"images are {size[0]} x {size[1]} px; by its name {side} x {side}")
            )
    checksums = {path: facts.checksums[SIDES.index(side)]} if facts else {}
    return Found(table, classes, problems, notes, size, checksums=checksums, licence=_licence(name))


def _licence(name: str) -> Licence | None:
    """Of one file; ``None`` for sets that we know nothing of."""
    if name == "dermamnist":
        return Licence("CC BY-NC 4.0", False, _CITE)
    return Licence("CC BY 4.0", True, _CITE) if name in FACTS else None


def _table(parts: list[pd.DataFrame]) -> pd.DataFrame:
    empty = pd.DataFrame({"path": [], "label": [], "split": []})
    return pd.concat(parts, ignore_index=True) if parts else empty


MEDMNIST = OpenSet(
    name="medmnist",
    title="MedMNIST .npz files: PathMNIST, BloodMNIST, TissueMNIST and others",
    kind="tiles",
    licence=Licence(
        "CC BY 4.0 (DermaMNIST CC BY-NC 4.0)",
        None,
        _CITE,
    ),
    source="https://zenodo.org/records/10519652",
    size="35 MB to 13 GB a file",
    split="train, val and test in every file",
    recognise=_recognise,
    read=_read,
)
