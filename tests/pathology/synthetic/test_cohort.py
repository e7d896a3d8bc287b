"""A cohort: its manifest, and what is made again."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile

from pathology.errors import OutputError
from pathology.synthetic import make_cohort

SMALL = {"train": 1, "val": 1, "test": 0, "size_px": (400, 360), "mpp": 2.0}


def test_cohort(tmp_path: Path) -> None:
    manifest = make_cohort(tmp_path, **SMALL, normal_slides=(0, 0, 1))
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "slide_id",
        "patient_id",
        "path",
        "split",
        "label",
        "regions",
        "evidence",
    ]
    assert [r["split"] for r in rows] == ["train", "val", "test"]
    assert [r["label"] for r in rows] == ["tumour", "tumour", "normal"]
    assert len({r["patient_id"] for r in rows}) == 3
    assert json.loads((tmp_path / "regions.json").read_text()) == {"normal": 1, "tumour": 2}
    for row in rows:
        assert tifffile.imread(tmp_path / row["path"]).shape == (360, 400, 3)
        classes = set(tifffile.imread(tmp_path / row["regions"]).ravel())
        assert classes == ({0, 1, 2} if row["label"] == "tumour" else {0, 1})
        assert tifffile.imread(tmp_path / row["evidence"]).shape == (360, 400)

    made: list[str] = []
    again = {"progress": lambda name, done, total: made.append(name)}
    before = manifest.read_bytes()
    make_cohort(tmp_path, **SMALL, normal_slides=(0, 0, 1), **again)
    assert made == []
    assert manifest.read_bytes() == before

    # A slide cut short, one without its stamp, and one more: these three are made.
    (tmp_path / "train_000_regions.tif").write_bytes(b"cut short")
    (tmp_path / "val_000.json").unlink()
    make_cohort(tmp_path, **SMALL | {"test": 1}, normal_slides=(0, 0, 1), **again)
    assert made == ["train_000", "val_000", "test_000"]

    made.clear()
    make_cohort(tmp_path, **SMALL | {"val": 0}, seed=1, **again)
    assert made == ["train_000"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        make_cohort(tmp_path / "file" / "cohort", **SMALL)
    with pytest.raises(OutputError):
        make_cohort(tmp_path / "file", 0, 0, 0)


def test_negative_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        make_cohort(tmp_path, train=-1)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, pathology.synthetic\n"
        "print([m for m in ('torch', 'lightning', 'monai', 'openslide') if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr
