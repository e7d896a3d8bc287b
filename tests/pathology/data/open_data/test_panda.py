"""PANDA."""

import pytest

from pathology.annotations import Classes
from pathology.data.open_data.panda import PANDA
from pathology.errors import ManifestError


def test_slides_have_grade_provider_and_mask(make, read):
    table = read(make("panda")).table
    assert table["label"].tolist() == ["0", "0", "1", "5"]
    assert table["site"].tolist() == ["karolinska", "radboud", "radboud", "karolinska"]
    assert table["gleason_score"].tolist() == ["0+0", "0+0", "3+3", "5+5"]
    assert table["regions"].str.endswith("_mask.tiff").all()
    assert "split" not in table
    assert "patient_id" not in table


def test_masks_of_two_providers_are_not_mixed(make, read):
    found = read(make("panda"))
    assert found.regions(found.table) == {}
    for site in ("radboud", "karolinska"):
        classes = Classes.of(found.regions(found.table[found.table["site"] == site]))
        assert "benign" in classes
        assert ("cancer" in classes) == (site == "karolinska")


def test_masks_may_be_missing(make, read):
    folder = make("panda")
    (folder / "train_label_masks" / f"{1:032x}_mask.tiff").unlink()
    found = read(folder)
    assert found.problems == []
    assert any("1 slides have no mask" in note for note in found.notes)


def test_lost_and_foreign_slides_are_named(make, read, said):
    folder = make("panda")
    (folder / "train_images" / f"{1:032x}.tiff").rename(folder / "train_images" / "other.tiff")
    text = said(read(folder))
    assert f"found 3 of 4 slides that train.csv lists: {1:032x}" in text
    assert "slides that train.csv does not list: other" in text


def test_tables_of_other_columns(make, read):
    folder = make("panda")
    (folder / "train.csv").write_text("image_id,label\na,1\n")
    with pytest.raises(ManifestError, match="column 'data_provider' is missing"):
        read(folder)
    (folder / "train.csv").write_text("name,label\na,1\n")
    assert not PANDA.recognise(folder)


def test_a_grade_that_is_none(make, read, said):
    folder = make("panda")
    path = folder / "train.csv"
    path.write_text(path.read_text().replace("karolinska,5", "karolinska,6"))
    assert "slides whose isup_grade is not 0 to 5" in said(read(folder))


def test_a_shorter_table_is_noticed(make, read, said, monkeypatch):
    folder = make("panda")
    monkeypatch.setattr("pathology.data.open_data.panda.SLIDES", 10_616)
    assert "train.csv lists 4 of 10,616 slides" in said(read(folder))
