"""Munich AML morphology: 18,365 single blood cells in 15 classes.

Matek et al. 2019; https://doi.org/10.7937/tcia.2019.36f5o9ld. ``BAS/BAS_0001.tiff`` and so on,
400 x 400 px. Names and numbers of classes as commonly stated; they sum to the published total.
"""

from pathlib import Path

from pathology.data.open_data.folders import child, files_below, names
from pathology.data.open_data.open_set import (
    Found,
    Licence,
    OpenSet,
    Problem,
    count_problems,
    tile_table,
)

CELLS = {
    "BAS": 79, "EBO": 78, "EOS": 424, "KSC": 15, "LYA": 11, "LYT": 3_937, "MMZ": 15, "MOB": 26,
    "MON": 1_789, "MYB": 42, "MYO": 3_268, "NGB": 109, "NGS": 8_484, "PMB": 18, "PMO": 70,
}  # fmt: skip
_HOMES = ("AML-Cytomorphology", "AML-Cytomorphology_LMU")
_ENOUGH = 8  # class folders that make it this set rather than somebody's


def _home(folder: Path) -> Path | None:
    below = [child(folder, *names_) for a in _HOMES for names_ in ((a,), (a, _HOMES[0]))]
    for home in (folder, *below):
        if home and sum(child(home, name) is not None for name in CELLS) >= _ENOUGH:
            return home
    return None


def _recognise(folder: Path) -> str:
    home = _home(folder)
    return f"folders of blood cell codes (BAS, EBO, ...) in {home}" if home else ""


def _read(folder: Path) -> Found:
    home = _home(folder)
    assert home is not None
    rows, problems = [], []
    for label in CELLS:
        cells = child(home, label)
        if cells is None:
            problems.append(Problem(f"class folder {label} is missing", (), True))
            continue
        files = files_below(cells, (".tif", ".tiff"))
        strangers = [p for p in files if not p.name.upper().startswith(f"{label}_")]
        if strangers:
            what = f"files in {label} that are named after another class"
            problems.append(Problem(what, names(strangers, folder)))
        rows += [{"path": str(p), "label": label} for p in files]
    table = tile_table(rows)
    problems += count_problems(table, "label", CELLS, "cells")
    notes = [
        "no patient ids are published (200 people): cells of one person are on both sides of any"
        " split, and figures on it flatter",
        "classes differ a thousandfold in size (LYA 11, NGS 8,484)",
    ]
    return Found(table, tuple(CELLS), problems, notes, (400, 400))


MUNICH_AML = OpenSet(
    name="munich-aml",
    title="Munich AML morphology: single blood cells, 15 classes",
    kind="tiles",
    licence=Licence(
        "CC BY 3.0, as commonly stated", True, "Matek et al. 2019, doi:10.1038/s42256-019-0101-9"
    ),
    source="https://doi.org/10.7937/tcia.2019.36f5o9ld",
    size="11 GB",
    split="none is published",
    recognise=_recognise,
    read=_read,
)
