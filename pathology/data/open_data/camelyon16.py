"""CAMELYON16: sentinel lymph nodes of breast cancer, 399 usable slides of two centres.

Ehteshami Bejnordi et al. 2017; data set Litjens et al. 2018, GigaScience 100439, and the
camelyon-dataset bucket of AWS open data. Slides are ``normal_001.tif``, ``tumor_001.tif`` and
``test_001.tif`` (older copies ``Normal_001``) in folders that differ between copies, so they are
known by name; lesions are ASAP XML files of the same name, labels of the test slides in
``reference.csv`` (``test_001,Tumor,IDC,Macro``, no header).

The organisers' notes: normal_086 was wrongly filed and is tumor_111; test_049 is a duplicate;
test_114 is not annotated exhaustively. Twenty training slides are only partly annotated, too.
"""

import re
from pathlib import Path

import pandas as pd

from pathology.data.open_data.folders import files_below, names
from pathology.data.open_data.open_set import Found, Licence, OpenSet, Problem, read_table
from pathology.data.open_data.rest import Rest

CLASSES = ("normal", "tumour")
LABELS = {"normal": "normal", "tumor": "tumour"}
SLIDES = {"normal": 159, "tumor": 111, "test": 129}
# ``_2`` encloses tissue that is not tumour, mostly holes in a tumour.
REGIONS = {"tumour": {"include": ["Tumor", "_0", "_1"], "exclude": ["Exclusion", "_2"]}}
# Outside of the lesions there is none, but on slides that were annotated in part.
REST = Rest(
    "normal",
    lambda table: (
        (table["annotation"] == "full") & ((table["label"] == "normal") | (table["regions"] != ""))
    ),
)
LEFT_OUT = {
    "normal_086": "filed wrongly by the organisers, who renamed it tumor_111",
    "test_049": "a duplicate, withdrawn by the organisers",
}
PARTLY_ANNOTATED = frozenset(
    f"tumor_{n:03d}"
    for n in (
        10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110,
    )
) | {"test_114"}  # fmt: skip
# Slides whose tiles are PatchCamelyon's validation part, and kaiko-ai/eva's.
VALIDATION = frozenset(
    [
        f"normal_{n:03d}"
        for n in (
            10, 13, 16, 17, 19, 20, 25, 30, 31, 32, 52, 56, 57, 67, 76, 79, 85, 95, 98, 99, 101,
            102, 105, 106, 109, 129, 132, 137, 142, 143, 148, 152,
        )
    ]
    + [
        f"tumor_{n:03d}"
        for n in (
            1, 5, 11, 12, 13, 19, 31, 37, 43, 46, 57, 65, 69, 71, 73, 79, 80, 81, 82, 85, 97, 109,
        )
    ]
)  # fmt: skip
_SLIDE = re.compile(r"(normal|tumor|test)_(\d{2,3})", re.IGNORECASE)


def _slide_id(path: Path) -> str:
    """``tumor_001`` of a slide or its XML, empty for other files."""
    match = _SLIDE.fullmatch(path.stem)
    return f"{match[1].lower()}_{int(match[2]):03d}" if match else ""


def _slides(folder: Path) -> list[Path]:
    """Slides of the folder; masks carry the same names in folders of their own."""
    files = files_below(folder, (".tif", ".tiff"))
    return [
        path
        for path in files
        if _slide_id(path)
        and not re.search("mask|evaluation|background", path.relative_to(folder).parent.as_posix())
    ]


def _recognise(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    kinds = {_slide_id(path).split("_")[0] for path in _slides(folder)}
    # ``test_01.tif`` alone is anybody's.
    return f"{' and '.join(sorted(kinds))} slides" if kinds & {"normal", "tumor"} else ""


def _test_labels(folder: Path) -> tuple[dict[str, str], list[Problem]]:
    tables = [p for p in files_below(folder, (".csv",)) if p.name.lower() == "reference.csv"]
    if not tables:
        return {}, [Problem("reference.csv is missing: test slides have no label", (), True)]
    table = read_table(tables[0], ("slide", "label"), header=False)
    labels, problems = {}, []
    for slide, word in zip(table["slide"], table["label"], strict=True):
        label = LABELS.get(word.strip().lower())
        if label is None:
            what = f"{tables[0].name}: {slide} is {word!r}; wanted Tumor or Normal"
            problems.append(Problem(what))
        else:
            labels[_slide_id(Path(slide.strip()))] = label
    return labels, problems


def _read(folder: Path) -> Found:
    slides = _slides(folder)
    lesions = {_slide_id(p): p for p in files_below(folder, (".xml",)) if _slide_id(p)}
    problems: list[Problem] = []
    notes = [
        f"{name} is left out: {why}"
        for name, why in LEFT_OUT.items()
        if any(_slide_id(path) == name for path in slides)
    ]
    has_test = any(_slide_id(path).startswith("test") for path in slides)
    labels, wrong = _test_labels(folder) if has_test else ({}, [])
    problems += wrong
    rows: list[dict[str, str]] = []
    seen: dict[str, Path] = {}
    for path in slides:
        name = _slide_id(path)
        if name in LEFT_OUT:
            continue
        if name in seen:
            problems.append(Problem(f"{name} is there twice", names([seen[name], path], folder)))
            continue
        seen[name] = path
        kind = name.split("_")[0]
        label = labels.get(name, "") if kind == "test" else LABELS[kind]
        lesion = lesions.get(name)
        rows.append(
            {
                "slide_id": name,
                "path": str(path),
                "label": label,
                "split": "test" if kind == "test" else "train",
                "regions": str(lesion) if lesion else "",
                "annotation": "partial" if name in PARTLY_ANNOTATED else "full",
            }
        )
    columns = ("slide_id", "path", "label", "split", "regions", "annotation")
    table = pd.DataFrame(rows, columns=list(columns))
    kinds = table["slide_id"].str.split("_").str[0].value_counts()
    for kind, wanted in SLIDES.items():
        count = int(kinds.get(kind, 0))
        if 0 < count != wanted:
            problems.append(
                Problem(f"{kind}: found {count} of {wanted} slides", (), count < wanted)
            )
        elif not count:
            notes.append(f"no {kind} slides are here")
    if labels and (table["label"] == "").any():
        lost = table.loc[table["label"] == "", "slide_id"]
        problems.append(Problem("test slides that reference.csv does not name", tuple(lost), True))
    packed = files_below(folder, ("lesion_annotations.zip",))
    undrawn = table[(table["label"] == "tumour") & (table["regions"] == "")]["slide_id"]
    if len(undrawn):
        hint = f"; unpack {names(packed, folder)[0]}" if packed else ""
        problems.append(Problem(f"tumour slides without a lesion XML{hint}", tuple(undrawn), True))
    partial = int((table["annotation"] == "partial").sum())
    if partial:
        notes.append(
            f"{partial} slides are annotated in part (column annotation): outside the lesions drawn"
            " there may be tumour"
        )
    notes.append("tiles outside of the lesions get no label, or normal by --rest")
    notes.append("no patient ids are published; as commonly stated every slide is another patient")
    return Found(table, CLASSES, problems, notes, regions=lambda _: REGIONS, rest=REST)


def _propose(table: pd.DataFrame) -> "pd.Series[str]":
    return table["split"].mask(table["slide_id"].isin(VALIDATION), "val")


CAMELYON16 = OpenSet(
    name="camelyon16",
    title="CAMELYON16: metastases in lymph nodes, whole slides with lesions drawn",
    kind="slides",
    licence=Licence("CC0", True, "Ehteshami Bejnordi et al. 2017, doi:10.1001/jama.2017.14585"),
    source="https://registry.opendata.aws/camelyon/ or http://gigadb.org/dataset/100439",
    size="700 GB",
    split="training (270) and test (129); no validation part",
    recognise=_recognise,
    read=_read,
    proposal="the 54 training slides that PatchCamelyon validates on",
    propose=_propose,
)
