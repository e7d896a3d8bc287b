"""PatchCamelyon: 327,680 tiles of lymph nodes in HDF5.

Veeling et al. 2018; https://github.com/basveeling/pcam, https://zenodo.org/records/2546921. Images
and labels are ``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5``; a CSV beside each names
the slides. The checksums that its first README gives for ``valid_x`` and ``test_x`` are swapped;
those here are the right ones (torchvision, pull request 6644, for the archives; kaiko-ai/eva for
the unpacked files).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pathology.data.image_files import array_length, open_hdf5
from pathology.data.open_data.folders import child
from pathology.data.open_data.open_set import (
    Found,
    Licence,
    OpenSet,
    Problem,
    count_problems,
    read_table,
)
from pathology.errors import ManifestError

CLASSES = ("normal", "tumour")
SPLITS = {"train": "train", "valid": "val", "test": "test"}
TILES = {"train": 262_144, "val": 32_768, "test": 32_768}
STEM = "camelyonpatch_level_2_split_{}_{}"
CHECKSUMS = {
    "train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
    "train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    "valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    "valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    "test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    "test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    "train_x.h5": "01844da899645b4d6f84946d417ba453",
    "train_y.h5": "0781386bf6c2fb62d58ff18891466aca",
    "valid_x.h5": "81cf9680f1724c40673f10dc88e909b1",
    "valid_y.h5": "94d8aacc249253159ce2a2e78a86e658",
    "test_x.h5": "2614b2e6717d6356be141d9d6dbfcb7e",
    "test_y.h5": "11ed647efe9fe457a4eb45df1dba19ba",
}


def _home(folder: Path) -> Path | None:
    """The folder of the files: this one, or ``pcam`` in it, where torchvision puts them."""
    for home in (folder, child(folder, "pcam")):
        if home is not None and any(
            child(home, STEM.format(split, "x.h5") + end) for split in SPLITS for end in ("", ".gz")
        ):
            return home
    return None


def _recognise(folder: Path) -> str:
    home = _home(folder)
    return f"camelyonpatch_level_2_split_*.h5 in {home}" if home else ""


def _labels(path: Path) -> "np.ndarray":
    try:
        with open_hdf5(path) as file:
            labels = np.asarray(file["y"]).reshape(len(file["y"]), -1)
    except (OSError, KeyError, ValueError) as error:
        raise ManifestError(f"{path}: no labels can be read from it ({error})") from error
    if labels.shape[1] != 1 or not np.isin(labels, (0, 1)).all():
        raise ManifestError(f"{path}: wanted one label per tile, 0 or 1; got {labels.shape}")
    return labels[:, 0].astype(np.intp)


def _read(folder: Path) -> Found:
    home = _home(folder)
    assert home is not None
    parts, problems, notes = [], [], []
    for name, split in SPLITS.items():
        x, y = (child(home, STEM.format(name, f"{kind}.h5")) for kind in "xy")
        if x is None or y is None:
            packed = child(home, STEM.format(name, "x.h5.gz"))
            kind = "x" if x is None else "y"
            if packed is not None:
                what = (
                    f"{split}: {packed.name} is packed; unpack it first: gunzip -k {home}/*.h5.gz"
                )
            else:
                what = f"{split}: {STEM.format(name, kind)}.h5 is missing"
            problems.append(Problem(what, (), True))
            continue
        try:
            labels, length = _labels(y), array_length(x)
        except ManifestError as error:
            problems.append(Problem(str(error)))
            continue
        if len(labels) != length:
            problems.append(Problem(f"{split}: {length:,} images but {len(labels):,} labels"))
            continue
        part = pd.DataFrame({"path": str(x), "index": np.arange(length), "split": split})
        part["label"] = np.array(CLASSES, dtype=object)[labels]
        meta = child(home, STEM.format(name, "meta.csv"))
        if meta is not None:
            slides = read_table(meta, ("wsi",))["wsi"]
            if len(slides) == length:
                part["slide_id"] = slides.to_numpy()
            else:
                problems.append(
                    Problem(f"{split}: {length:,} images but {len(slides):,} rows in {meta.name}")
                )
        parts.append(part)
    table = pd.concat(parts) if parts else pd.DataFrame({"path": [], "label": [], "split": []})
    table = table.reset_index(drop=True)
    if "slide_id" in table:
        table["slide_id"] = table["slide_id"].fillna("")
    else:
        notes.append("without the *_meta.csv files nobody knows which slide a tile is from")
    problems += count_problems(table, "split", TILES, "tiles")
    notes.append("a label speaks of the central 32 x 32 px only: tumour at the rim alone is normal")
    notes.append("no patient ids are published; slides are those of CAMELYON16")
    checksums = {
        path: md5
        for end, md5 in CHECKSUMS.items()
        if (path := child(home, STEM.format(*end.split("_")))) is not None
    }
    return Found(table, CLASSES, problems, notes, (96, 96), checksums=checksums)


PCAM = OpenSet(
    name="pcam",
    title="PatchCamelyon: metastases in lymph nodes, tiles of 96 px",
    kind="tiles",
    licence=Licence("CC0", True, "Veeling et al. 2018, doi:10.1007/978-3-030-00934-2_24"),
    source="https://zenodo.org/records/2546921",
    size="7 GB",
    split="train, validation and test by slide",
    recognise=_recognise,
    read=_read,
)
