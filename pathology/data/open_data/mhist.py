"""MHIST: 3,152 tiles of colorectal polyps, hyperplastic or serrated.

Wei et al. 2021; https://bmirds.github.io/MHIST. ``images/MHIST_aaa.png`` and ``annotations.csv``.
"""

from pathlib import Path

from pathology.data.open_data.folders import child, files_below, here_or_below, names
from pathology.data.open_data.open_set import (
    Found,
    Licence,
    OpenSet,
    Problem,
    count_problems,
    read_table,
    tile_table,
)

CLASSES = ("HP", "SSA")
TILES = {"train": 2_175, "test": 977}
LABELS = {"HP": 2_162, "SSA": 990}
NAME, LABEL, PART = "Image Name", "Majority Vote Label", "Partition"
VOTES = "Number of Annotators who Selected SSA (Out of 7)"


def _home(folder: Path) -> Path | None:
    for home in (folder, here_or_below(folder, "mhist")):
        table = home and child(home, "annotations.csv")
        if home is not None and table is not None:
            try:
                text = table.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError):
                continue
            header = text.partition("\n")[0]
            if "MHIST" in header or "MHIST" in text[:400] or LABEL in header:
                return home
    return None


def _recognise(folder: Path) -> str:
    home = _home(folder)
    return f"annotations.csv of MHIST in {home}" if home else ""


def _read(folder: Path) -> Found:
    home = _home(folder)
    assert home is not None
    listed_in = child(home, "annotations.csv")
    assert listed_in is not None
    listed = read_table(listed_in, (NAME, LABEL, VOTES, PART))
    images_in = child(home, "images")
    images = {p.name: p for p in files_below(images_in or home, (".png",))}
    problems = []
    lost = [name for name in listed[NAME] if name not in images]
    if lost:
        hint = "; unpack images.zip" if child(home, "images.zip") else ""
        what = f"found {len(listed) - len(lost):,} of {len(listed):,} listed images{hint}"
        problems.append(Problem(what, tuple(lost), True))
    strangers = sorted(set(images) - set(listed[NAME]))
    if strangers:
        what = "images that annotations.csv does not list"
        problems.append(Problem(what, names([images[name] for name in strangers], folder)))
    wrong = listed[~listed[LABEL].isin(CLASSES) | ~listed[PART].isin(TILES)][NAME]
    if len(wrong):
        what = "rows whose label is not HP or SSA, or whose partition is not train or test"
        problems.append(Problem(what, tuple(wrong)))
    good = listed[~listed[NAME].isin(lost) & ~listed[NAME].isin(wrong)]
    table = tile_table(
        [
            {"path": str(images[name]), "label": label, "split": part, "votes_ssa": votes}
            for name, label, part, votes in zip(
                good[NAME], good[LABEL], good[PART], good[VOTES], strict=True
            )
        ]
    )
    if len(table):
        problems += count_problems(table, "split", TILES, "tiles")
        problems += count_problems(table, "label", LABELS, "tiles")
    notes = [
        "no patient ids are published",
        "votes_ssa of 7 annotators: three or four of them is close to a toss",
    ]
    return Found(table, CLASSES, problems, notes, (224, 224))


MHIST = OpenSet(
    name="mhist",
    title="MHIST: colorectal polyps, hyperplastic (HP) or sessile serrated (SSA)",
    kind="tiles",
    licence=Licence("research use agreement", False, "Wei et al. 2021, arXiv:2101.12355"),
    source="https://bmirds.github.io/MHIST",
    size="354 MB",
    split="train (2,175) and test (977); no validation part",
    recognise=_recognise,
    read=_read,
)
