"""CAMELYON16."""

import pytest

from pathology.annotations import Classes
from pathology.data.open_data import camelyon16
from pathology.data.open_data.camelyon16 import CAMELYON16
from tests.pathology.data.open_data.trees import slide


def by_id(found):
    return found.table.set_index("slide_id")


def test_slides_have_labels_and_lesions(make, read):
    folder = make("camelyon16")
    table = by_id(read(folder))
    assert table["label"].to_dict() == {
        "normal_001": "normal", "normal_010": "normal", "tumor_001": "tumour",
        "tumor_010": "tumour", "test_001": "tumour", "test_003": "normal",
    }  # fmt: skip
    assert table["split"].to_dict() == {
        name: "test" if name.startswith("test") else "train" for name in table.index
    }
    assert table.loc["test_001", "regions"].endswith("testing/lesion_annotations/test_001.xml")
    assert table.loc["normal_001", "regions"] == ""
    assert table.loc["tumor_010", "annotation"] == "partial"
    assert "evaluation" not in "".join(table["path"])  # masks have the slides' names


def test_older_copies_are_read_too(make, read):
    """TrainingData/Train_Tumor/Tumor_001.tif, and the bucket's flat images and annotations."""
    folder = make("camelyon16")
    (folder / "training").rename(folder / "TrainingData")
    for kind in ("normal", "tumor"):
        home = folder / "TrainingData" / kind
        for path in home.iterdir():
            path.rename(path.with_name(path.name.capitalize()))
        home.rename(home.with_name(f"Train_{kind.capitalize()}"))
    found = read(folder)
    assert found.problems == []
    assert set(by_id(found).index) >= {"normal_001", "tumor_010"}


def test_withdrawn_slides_are_left_out_and_said(make, read):
    folder = make("camelyon16")
    slide(folder / "training" / "normal" / "normal_086.tif")
    slide(folder / "testing" / "images" / "Test_049.tif")
    found = read(folder)
    assert found.problems == []
    assert not {"normal_086", "test_049"} & set(by_id(found).index)
    assert any(n.startswith("normal_086 is left out") for n in found.notes)
    assert any(n.startswith("test_049 is left out: a duplicate") for n in found.notes)


def test_nothing_but_a_withdrawn_slide(tmp_path, read):
    slide(tmp_path / "normal_086.tif")
    assert read(tmp_path).table.empty


def test_a_slide_that_is_there_twice(make, read, said):
    folder = make("camelyon16")
    slide(folder / "more" / "Tumor_001.tif")
    assert "tumor_001 is there twice" in said(read(folder))


def test_lost_slides_are_counted_by_kind(make, read, said):
    folder = make("camelyon16")
    (folder / "training" / "normal" / "normal_001.tif").unlink()
    assert "normal: found 1 of 2 slides" in said(read(folder))


def test_without_reference_csv_test_slides_have_no_label(make, read, said):
    folder = make("camelyon16")
    (folder / "testing" / "reference.csv").unlink()
    found = read(folder)
    assert "reference.csv is missing: test slides have no label" in said(found)
    assert set(found.table[found.table["split"] == "test"]["label"]) == {""}


def test_reference_csv_of_other_contents(make, read, said):
    folder = make("camelyon16")
    (folder / "testing" / "reference.csv").write_text("test_001,Tumor\n")
    assert "test slides that reference.csv does not name: test_003" in said(read(folder))
    (folder / "testing" / "reference.csv").write_text("test_001,Maybe\ntest_003,Normal\n")
    assert "test_001 is 'Maybe'; wanted Tumor or Normal" in said(read(folder))


def test_packed_lesions_must_be_unpacked(make, read, said):
    folder = make("camelyon16")
    lesions = folder / "training" / "lesion_annotations"
    for path in lesions.iterdir():
        path.unlink()
    (folder / "training" / "lesion_annotations.zip").write_bytes(b"PK")
    text = said(read(folder))
    assert "tumour slides without a lesion XML; unpack training/lesion_annotations.zip" in text
    assert "tumor_001, tumor_010" in text


def test_holes_are_cut_out_of_lesions(make, read):
    regions = read(make("camelyon16")).regions
    classes = Classes.of(regions(None))
    assert classes["tumour"].include == ("Tumor", "_0", "_1")
    assert "_2" in classes["tumour"].exclude


def test_the_proposed_validation_part_is_of_54_training_slides(make, read):
    assert len(camelyon16.VALIDATION) == 54
    assert not camelyon16.VALIDATION & set(camelyon16.LEFT_OUT)
    table = read(make("camelyon16")).table
    split = dict(zip(table["slide_id"], CAMELYON16.propose(table), strict=True))
    assert split["normal_010"] == split["tumor_001"] == "val"
    assert split["normal_001"] == "train"
    assert split["test_001"] == "test"


@pytest.mark.parametrize("name", ["test_01.tif", "normal.tif", "tumor_001_mask.tif"])
def test_files_of_others_are_not_taken_for_it(tmp_path, name):
    slide(tmp_path / name)
    assert not CAMELYON16.recognise(tmp_path)
