"""CAMELYON17."""

import pytest

from pathology.annotations import Classes
from pathology.errors import ManifestError


def by_id(found):
    return found.table.set_index("slide_id")


def test_slides_have_patient_centre_label_and_stage(make, read):
    table = by_id(read(make("camelyon17")))
    assert len(table) == 15
    row = table.loc["patient_020_node_1"]
    assert row["patient_id"] == "patient_020"
    assert row["site"] == "center_1"
    assert row["label"] == "macro"
    assert row["stage"] == "pN1"
    assert row["split"] == "train"
    assert row["regions"].endswith("lesion_annotations/patient_020_node_1.xml")
    other = table.loc["patient_100_node_3"]
    assert (other["split"], other["label"], other["site"]) == ("test", "", "")


def test_folders_of_patients_leave_the_centre_to_the_number(make, read):
    folder = make("camelyon17") / "training"
    (folder / "center_1").rename(folder / "patient_020")
    assert by_id(read(folder.parent)).loc["patient_020_node_0", "site"] == "center_1"


def test_older_copies_call_the_table_otherwise(make, read):
    folder = make("camelyon17") / "training"
    (folder / "stages.csv").rename(folder / "stage_labels.csv")
    assert read(folder.parent).problems == []


def test_a_patient_who_lacks_a_node_is_named(make, read, said):
    folder = make("camelyon17")
    (folder / "training" / "center_0" / "patient_000_node_3.tif").unlink()
    assert "patients without 5 slides: patient_000 (4)" in said(read(folder))


def test_lost_patients_are_counted(make, read, said):
    folder = make("camelyon17")
    for path in (folder / "training" / "center_0").iterdir():
        path.unlink()
    assert "train: found 1 of 2 patients" in said(read(folder))


def test_without_stages_slides_have_no_label(make, read, said):
    folder = make("camelyon17")
    (folder / "training" / "stages.csv").unlink()
    found = read(folder)
    assert "stages.csv is missing" in said(found)
    assert set(found.table["label"]) == {""}


def test_stages_of_other_words_or_columns(make, read, said):
    folder = make("camelyon17")
    stages = folder / "training" / "stages.csv"
    stages.write_text(stages.read_text().replace("macro", "huge"))
    assert "none of negative, itc, micro, macro: patient_020_node_1 (huge)" in said(read(folder))
    stages.write_text("id,stage\n1,2\n")
    with pytest.raises(ManifestError, match="column 'patient' is missing"):
        read(folder)


def test_lost_lesions_are_counted(make, read, said):
    folder = make("camelyon17")
    (folder / "training" / "lesion_annotations" / "patient_020_node_1.xml").unlink()
    assert "found 0 of 1 slides' lesion XML files" in said(read(folder))


def test_what_is_normal_within_a_lesion_is_cut_out(make, read):
    classes = Classes.of(read(make("camelyon17")).regions(None))
    assert classes["tumour"].include == ("metastases",)
    assert classes["tumour"].exclude == ("normal",)
