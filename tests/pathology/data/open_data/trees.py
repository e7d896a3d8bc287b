"""Small copies of data sets: real files, a few of each class, in the exact layout."""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image

from pathology.data.open_data import (
    bach,
    breakhis,
    camelyon16,
    camelyon17,
    medmnist,
    mhist,
    munich_aml,
    nct_crc,
    panda,
    pcam,
)

_seed = iter(range(10**9))


def picture(path: Path, size: tuple[int, int]) -> Path:
    """An image like no other, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A few blocks of colour: fast to write at 2048 px, and still different everywhere.
    blocks = np.random.default_rng(next(_seed)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def slide(path: Path, mpp: float | None = 0.25) -> Path:
    """A tiled TIFF of 256 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(_seed)).integers(100, 256, (256, 256, 3), dtype=np.uint8)
    scale = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", compression="jpeg", **scale)
    return path


def asap(path: Path, groups: tuple[str, ...]) -> Path:
    """An ASAP XML with one 100 px square per group, side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = []
    for i, group in enumerate(groups):
        corners = [(100 * i, 0), (100 * i + 100, 0), (100 * i + 100, 100), (100 * i, 100)]
        points = "".join(
            f'<Coordinate Order="{n}" X="{x}.0" Y="{y}.0"/>' for n, (x, y) in enumerate(corners)
        )
        drawn.append(
            f'<Annotation Name="Annotation {i}" Type="Polygon" PartOfGroup="{group}"'
            f' Color="#F4FA58"><Coordinates>{points}</Coordinates></Annotation>'
        )
    named = "".join(
        f'<Group Name="{g}" PartOfGroup="None" Color="#00ff00"><Attributes/></Group>'
        for g in groups
    )
    path.write_text(
        '<?xml version="1.0"?><ASAP_Annotations><Annotations>'
        + "".join(drawn)
        + f"</Annotations><AnnotationGroups>{named}</AnnotationGroups></ASAP_Annotations>"
    )
    return path


def table(path: Path, rows: list[tuple], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def make_nct_crc(root: Path, train: str = "NCT-CRC-HE-100K") -> Path:
    for part, count, stem in ((train, 2, "AAAFLCL"), ("CRC-VAL-HE-7K", 1, "TCGA-AAICEQF")):
        for name in nct_crc.CLASSES:
            for i in range(count):
                picture(root / part / name / f"{name}-{stem}{'ABC'[i]}.tif", (224, 224))
    return root


def make_pcam(root: Path, meta: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(next(_seed))
    for split, count in (("train", 8), ("valid", 4), ("test", 4)):
        with h5py.File(root / f"{pcam.STEM.format(split, 'x')}.h5", "w") as file:
            file["x"] = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        with h5py.File(root / f"{pcam.STEM.format(split, 'y')}.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        if meta:
            rows = [
                (i, 10, 20, i % 2, i % 2, f"camelyon16_{split}_00{i % 2}") for i in range(count)
            ]
            head = ("", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
            table(root / f"{pcam.STEM.format(split, 'meta')}.csv", [head, *rows])
    return root


def make_camelyon16(root: Path) -> Path:
    train, test = root / "training", root / "testing"
    for name in ("normal_001", "normal_010"):
        slide(train / "normal" / f"{name}.tif")
    for name in ("tumor_001", "tumor_010"):
        slide(train / "tumor" / f"{name}.tif")
        asap(train / "lesion_annotations" / f"{name}.xml", ("_0", "_2"))
    for name in ("test_001", "test_003"):
        slide(test / "images" / f"{name}.tif")
    asap(test / "lesion_annotations" / "test_001.xml", ("Tumor",))
    rows = [("test_001", "Tumor", "IDC", "Macro"), ("test_003", "Normal", "None", "None")]
    table(test / "reference.csv", rows)
    slide(test / "evaluation" / "test_001.tif")  # a mask, of the slide's name
    return root


def make_camelyon17(root: Path) -> Path:
    rows = [("patient", "stage")]
    for patient, stage in ((0, "pN0"), (20, "pN1")):
        rows.append((f"patient_{patient:03d}.zip", stage))
        for node in range(5):
            name = f"patient_{patient:03d}_node_{node}"
            slide(root / "training" / f"center_{patient // 20}" / f"{name}.tif")
            label = "macro" if patient and node == 1 else "negative"
            rows.append((f"{name}.tif", label))
    for node in range(5):
        slide(root / "testing" / "patients" / f"patient_100_node_{node}.tif")
    lesion = root / "training" / "lesion_annotations" / "patient_020_node_1.xml"
    asap(lesion, ("metastases", "normal"))
    table(root / "training" / "stages.csv", rows)
    return root


def make_panda(root: Path) -> Path:
    head = panda.COLUMNS
    rows = []
    for i, (provider, grade, score) in enumerate(
        (
            ("karolinska", 0, "0+0"), ("radboud", 0, "negative"), ("radboud", 1, "3+3"),
            ("karolinska", 5, "5+5"),
        )
    ):  # fmt: skip
        name = f"{i:032x}"
        rows.append((name, provider, grade, score))
        slide(root / "train_images" / f"{name}.tiff", 0.5)
        mask = np.zeros((256, 256, 3), np.uint8)
        mask[:128, :, 0] = 2 if provider == "karolinska" else 3
        path = root / "train_label_masks" / f"{name}_mask.tiff"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, mask, tile=(128, 128), photometric="rgb", compression="deflate")
    table(root / "train.csv", [head, *rows])
    table(root / "test.csv", [head[:2]])
    table(root / "sample_submission.csv", [("image_id", "isup_grade")])
    return root


def make_bach(root: Path) -> Path:
    rows = []
    for name, prefix in bach.PREFIXES.items():
        for i in (1, 42):
            picture(root / "Photos" / name / f"{prefix}{i:03d}.tif", (2048, 1536))
            rows.append((f"{prefix}{i:03d}.tif", name))
    table(root / "Photos" / "microscopy_ground_truth.csv", rows)
    slide(root / "WSI" / "A01.svs")
    return root


KINDS = {
    "A": "adenosis", "F": "fibroadenoma", "PT": "phyllodes_tumor", "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma", "LC": "lobular_carcinoma", "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}  # fmt: skip


def make_breakhis(root: Path) -> Path:
    home = root / "histology_slides" / "breast"
    patients = {
        "A": "22549AB", "F": "14134", "PT": "19979", "TA": "4659", "DC": "13412", "LC": "13412",
        "MC": "13418DE", "PC": "9146",
    }  # fmt: skip
    for kind, patient in patients.items():
        group = "B" if kind in breakhis.BENIGN else "M"
        folder = home / {"B": "benign", "M": "malignant"}[group] / "SOB" / KINDS[kind]
        for power in (40, 100, 200, 400):
            picture(
                folder / f"SOB_{group}_{kind}_14-{patient}" / f"{power}X"
                / f"SOB_{group}_{kind}-14-{patient}-{power}-001.png",
                (700, 460),
            )  # fmt: skip
    return root


def make_mhist(root: Path) -> Path:
    rows = [(mhist.NAME, mhist.LABEL, mhist.VOTES, mhist.PART)]
    for i, (label, part) in enumerate(
        (("SSA", "train"), ("HP", "train"), ("HP", "train"), ("HP", "test"), ("SSA", "test"))
    ):
        name = f"MHIST_aa{'abcde'[i]}.png"
        rows.append((name, label, 6 if label == "SSA" else 1, part))
        picture(root / "images" / name, (224, 224))
    table(root / "annotations.csv", rows)
    return root


UUIDS = [f"{i:08x}-0000-4000-8000-000000000000" for i in range(4)]
BARCODES = [
    "TCGA-A2-A0YE-01Z-00-DX1.8A2E3094-5755-42BC-969D-7F0A2ECA0F39",
    "TCGA-A2-A0YE-01A-01-TS1.11111111-5755-42BC-969D-7F0A2ECA0F39",
    "TCGA-EJ-5518-11A-01-BS1.22222222-5755-42BC-969D-7F0A2ECA0F39",
    "TCGA-EJ-7791-01Z-00-DX1.33333333-5755-42BC-969D-7F0A2ECA0F39",
]


def make_tcga(root: Path, sheet: bool = True) -> Path:
    from pathology.data.open_data.check import md5

    rows = [("id", "filename", "md5", "size", "state")]
    listed = [("File ID", "File Name", "Project ID", "Case ID", "Sample Type")]
    for uuid, barcode in zip(UUIDS, BARCODES, strict=True):
        path = slide(root / uuid / f"{barcode}.svs")
        (root / uuid / "logs").mkdir()
        (root / uuid / "logs" / f"{barcode}.svs.parcel").touch()
        rows.append((uuid, path.name, md5(path), path.stat().st_size, "released"))
        project = "TCGA-BRCA" if "A2" in barcode[:8] else "TCGA-PRAD"
        listed.append((uuid, path.name, project, barcode[:12], "Primary Tumor"))
    table(root / "gdc_manifest.2026-01-01.txt", rows, "\t")
    if sheet:
        table(root / "gdc_sample_sheet.2026-01-01.tsv", listed, "\t")
    return root


def make_munich_aml(root: Path) -> Path:
    for name in munich_aml.CELLS:
        for i in (1, 2):
            picture(root / name / f"{name}_{i:04d}.tiff", (400, 400))
    (root / "annotations.dat").write_text("BAS/BAS_0001.tiff BAS\n")
    (root / "abbreviations.txt").write_text("BAS basophil\n")
    return root


def make_medmnist(
    root: Path, name: str = "bloodmnist.npz", classes: int = 8, side: int = 28
) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(next(_seed))
    arrays = {}
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        shape = (count * classes, side, side, 3)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.tile(np.arange(classes, dtype=np.uint8), count)[:, None]
    np.savez_compressed(root / name, **arrays)
    return root / name


def make_folder(root: Path, splits: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    for split in splits or ("",):
        for name in ("normal", "tumour"):
            for i in range(2):
                picture(root / split / name / f"{i}.png", (32, 32))
    return root


def make_csv(root: Path) -> Path:
    rows = [("Image", "Diagnosis", "Subset", "Patient", "age")]
    for i in range(6):
        picture(root / "pictures" / f"{i}.png", (32, 32))
        split = ("training", "Validation", "test")[i // 2]
        rows.append((f"{i}.png", ("benign", "malignant")[i % 2], split, f"p{i}", 40 + i))
    table(root / "list.csv", rows)
    return root


def make_slides(root: Path) -> Path:
    rows = [("slide_id", "path", "patient_id", "label", "split", "regions")]
    for i in range(4):
        slide(root / "files" / f"{i}.tif")
        lesion = asap(root / "drawn" / f"{i}.xml", ("Tumor",)) if i == 0 else ""
        regions = lesion and lesion.relative_to(root).as_posix()
        split = ("train", "test")[i // 2]
        rows.append((f"s{i}", f"files/{i}.tif", f"p{i // 2}", "ab"[i % 2], split, regions))
    table(root / "slides.csv", rows)
    (root / "regions.json").write_text('{"tumour": ["Tumor"]}')
    return root


# name of the set -> (how to make it in a folder, folder's own name)
TREES = {
    "nct-crc-he": (make_nct_crc, "crc"),
    "nct-crc-he-nonorm": (lambda root: make_nct_crc(root, "NCT-CRC-HE-100K-NONORM"), "crc"),
    "pcam": (make_pcam, "pcam"),
    "camelyon16": (make_camelyon16, "CAMELYON16"),
    "camelyon17": (make_camelyon17, "CAMELYON17"),
    "panda": (make_panda, "prostate-cancer-grade-assessment"),
    "bach": (make_bach, "ICIAR2018_BACH_Challenge"),
    "breakhis": (make_breakhis, "BreaKHis_v1"),
    "mhist": (make_mhist, "mhist"),
    "tcga": (make_tcga, "tcga_brca"),
    "munich-aml": (make_munich_aml, "AML-Cytomorphology"),
    "medmnist": (make_medmnist, "medmnist"),
    "slides": (make_slides, "mine"),
    "csv": (make_csv, "mine"),
    "folder": (make_folder, "mine"),
}

# What the small copies hold, where a check asks for the published numbers.
SMALL = {
    "nct-crc-he": [(nct_crc, "TILES", {"train": 18, "test": 9})],
    "nct-crc-he-nonorm": [(nct_crc, "TILES", {"train": 18, "test": 9})],
    "pcam": [(pcam, "TILES", {"train": 8, "val": 4, "test": 4})],
    "camelyon16": [(camelyon16, "SLIDES", {"normal": 2, "tumor": 2, "test": 2})],
    "camelyon17": [
        (camelyon17, "PATIENTS", {"train": 2, "test": 1}), (camelyon17, "ANNOTATED", 1),
    ],
    "panda": [(panda, "SLIDES", 4)],
    "bach": [(bach, "IMAGES", 2)],
    "breakhis": [
        (breakhis, "IMAGES", dict.fromkeys(("40X", "100X", "200X", "400X"), 8)),
        (breakhis, "GROUPS", {"benign": 16, "malignant": 16}),
        (breakhis, "PATIENTS", 7),
    ],
    "mhist": [(mhist, "TILES", {"train": 3, "test": 2}), (mhist, "LABELS", {"HP": 3, "SSA": 2})],
    "tcga": [],
    "munich-aml": [(munich_aml, "CELLS", dict.fromkeys(munich_aml.CELLS, 2))],
    "medmnist": [
        (
            medmnist,
            "FACTS",
            {"bloodmnist": replace(medmnist.FACTS["bloodmnist"], tiles=(16, 8, 8))},
        )
    ],
    "slides": [],
    "csv": [],
    "folder": [],
}  # fmt: skip


def take_small(monkeypatch, name: str) -> None:
    """Takes the numbers of a small copy for the published ones."""
    for module, attribute, value in SMALL[name]:
        monkeypatch.setattr(module, attribute, value)


def made_once(tmp_path_factory):
    """Makes small copies, each once, for tests that only read them."""

    @cache
    def make(name: str) -> Path:
        build, folder = TREES[name]
        return build(tmp_path_factory.mktemp(name) / folder)

    return make
