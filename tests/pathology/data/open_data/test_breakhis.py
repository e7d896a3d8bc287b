"""BreakHis."""

import shutil
from pathlib import Path

import pytest

from pathology.data.open_data import breakhis
from pathology.data.open_data.breakhis import BREAKHIS
from pathology.data.open_data.check import check_files
from tests.pathology.data.open_data.trees import picture


def test_names_tell_class_patient_and_magnification(make, read):
    table = read(make("breakhis")).table
    assert len(table) == 32
    row = table[table["path"].str.endswith("SOB_B_TA-14-4659-40-001.png")].iloc[0]
    assert (row["label"], row["patient_id"], row["group"], row["magnification"]) == (
        "TA", "4659", "benign", "40X",
    )  # fmt: skip
    assert "split" not in table


def test_published_numbers_agree_with_each_other():
    assert sum(breakhis.IMAGES.values()) == sum(breakhis.GROUPS.values()) == 7_909


def test_images_of_456_px_are_fine(make, read):
    """The published set holds some."""
    found = read(make("breakhis"))
    picture(Path(found.table["path"][0]), (700, 456))
    assert check_files(found, "tiles", "all", duplicates=False) == []


def test_the_patient_in_two_classes_is_said(make, read):
    notes = read(make("breakhis")).notes
    assert any("patient 13412 is in 2 classes, DC and LC" in note for note in notes)


def test_the_proposed_split_keeps_patients_together(make, read):
    table = read(make("breakhis")).table
    table["split"] = BREAKHIS.propose(table)
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(table[table["split"] == "val"]["patient_id"]) == {"19979", "9146"}


def test_magnifications_that_are_not_there(make, read, said):
    folder = make("breakhis")
    for path in list(folder.rglob("100X")):
        shutil.rmtree(path)
    text = said(read(folder))
    assert "no image of magnification 100X" in text
    assert "benign: found 12 of 16 images" in text


@pytest.mark.parametrize("name", ["SOB_B_XX-14-1-40-001.png", "photo.png"])
def test_a_name_that_tells_nothing(make, read, said, name):
    folder = make("breakhis")
    next(folder.rglob("*-40-001.png")).rename(folder / "histology_slides" / name)
    text = said(read(folder))
    assert f"images whose names tell no class and patient: histology_slides/{name}" in text
    assert "40X: found 7 of 8 images" in text


def test_an_image_in_the_wrong_folder(make, read, said):
    folder = make("breakhis")
    path = next(folder.rglob("40X/*-40-001.png"))
    path.rename(path.parent.with_name("400X") / path.name)
    assert "in a folder of another magnification or group" in said(read(folder))


def test_a_lost_patient(make, read, said):
    folder = make("breakhis")
    shutil.rmtree(next(folder.rglob("SOB_B_TA_14-4659")))
    assert "found 6 of 7 patients" in said(read(folder))


def test_no_image_that_tells_anything(tmp_path, read, said):
    folder = tmp_path / "BreaKHis_v1"
    picture(folder / "breast" / "SOB_B_XX-14-1-40-001.png", (70, 46))
    found = read(folder)
    assert "no image of magnification 40X, 100X, 200X, 400X" in said(found)
    assert found.table.empty
