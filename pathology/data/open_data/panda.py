"""PANDA: Gleason grades of 10,616 prostate biopsies of two centres.

Bulten et al. 2022; https://www.kaggle.com/competitions/prostate-cancer-grade-assessment. Slides are
``train_images/<32 hex digits>.tiff``, masks ``train_label_masks/<id>_mask.tiff``, labels in
``train.csv``: ``image_id, data_provider, isup_grade, gleason_score``.
"""

from pathlib import Path

import pandas as pd

from pathology.data.open_data.folders import child, files_below, here_or_below
from pathology.data.open_data.open_set import Found, Licence, OpenSet, Problem, read_table

CLASSES = ("0", "1", "2", "3", "4", "5")
SLIDES = 10_616
COLUMNS = ("image_id", "data_provider", "isup_grade", "gleason_score")
# Masks have three channels, of which the first holds the value: colours #010000, #020000, ...
REGIONS = {
    "radboud": {
        "stroma": ["#010000"],
        "benign": ["#020000"],
        "gleason 3": ["#030000"],
        "gleason 4": ["#040000"],
        "gleason 5": ["#050000"],
    },
    "karolinska": {"benign": ["#010000"], "cancer": ["#020000"]},
}
_NAME = "prostate-cancer-grade-assessment"


def _home(folder: Path) -> Path | None:
    for home in (folder, here_or_below(folder, _NAME)):
        if home is not None and child(home, "train_images") and child(home, "train.csv"):
            return home
    return None


def _recognise(folder: Path) -> str:
    home = _home(folder)
    if home is None:
        return ""
    table = child(home, "train.csv")
    assert table is not None
    try:
        with table.open() as file:
            header = file.readline()
    except (OSError, UnicodeDecodeError):
        return ""
    return f"train.csv and train_images in {home}" if "image_id" in header else ""


def _read(folder: Path) -> Found:
    home = _home(folder)
    assert home is not None
    listed_in, images = child(home, "train.csv"), child(home, "train_images")
    assert listed_in is not None
    assert images is not None
    listed = read_table(listed_in, COLUMNS)
    slides = {p.stem: p for p in files_below(images, (".tiff", ".tif"))}
    masks_in = child(home, "train_label_masks")
    masks = {
        p.stem.removesuffix("_mask"): p
        for p in (files_below(masks_in, (".tiff", ".tif")) if masks_in else [])
    }
    problems = []
    lost = listed[~listed["image_id"].isin(slides)]["image_id"]
    if len(lost):
        what = f"found {len(listed) - len(lost):,} of {len(listed):,} slides that train.csv lists"
        problems.append(Problem(what, tuple(lost), True))
    if len(listed) != SLIDES:
        what = f"train.csv lists {len(listed):,} of {SLIDES:,} slides"
        problems.append(Problem(what, (), len(listed) < SLIDES))
    strangers = sorted(set(slides) - set(listed["image_id"]))
    if strangers:
        problems.append(Problem("slides that train.csv does not list", tuple(strangers)))
    wrong = listed[~listed["isup_grade"].isin(CLASSES)]["image_id"]
    if len(wrong):
        problems.append(Problem("slides whose isup_grade is not 0 to 5", tuple(wrong)))
    here = listed[listed["image_id"].isin(slides)]
    table = pd.DataFrame(
        {
            "slide_id": here["image_id"],
            "path": [str(slides[name]) for name in here["image_id"]],
            "label": here["isup_grade"],
            "site": here["data_provider"],
            # The two providers write the same score in two ways.
            "gleason_score": here["gleason_score"].replace("negative", "0+0"),
            "regions": [str(masks.get(name, "")) for name in here["image_id"]],
        }
    ).reset_index(drop=True)
    notes = [
        "no patient ids are published: slides of one patient may be in two parts of any split",
        "about a tenth of the labels is thought to be wrong (noisy); they are kept",
        "values of the masks mean another thing at either provider: radboud 1 stroma, 2 benign,"
        " 3 to 5 Gleason; karolinska 1 benign, 2 cancer (as commonly stated). For regions choose"
        " one, --where site=radboud",
    ]
    without = int((table["regions"] == "").sum()) if masks else len(table)
    if without:
        notes.append(f"{without:,} slides have no mask here; about 100 never had one")
    return Found(table, CLASSES, problems, notes, regions=_regions)


def _regions(table: pd.DataFrame) -> dict[str, list[str]]:
    providers = set(table["site"])
    return REGIONS.get(providers.pop(), {}) if len(providers) == 1 else {}


PANDA = OpenSet(
    name="panda",
    title="PANDA: prostate biopsies, ISUP grades 0 to 5",
    kind="slides",
    licence=Licence("CC BY-NC-SA 4.0", False, "Bulten et al. 2022, doi:10.1038/s41591-021-01620-2"),
    source="https://www.kaggle.com/competitions/prostate-cancer-grade-assessment",
    size="347 GB",
    split="none is published (the test part is not)",
    recognise=_recognise,
    read=_read,
)
