"""BACH."""

from pathology.data.open_data.bach import BACH, PREFIXES, VALIDATION
from pathology.data.open_data.check import check_files
from tests.pathology.data.open_data.trees import picture


def test_photos_are_labelled_by_folder(make, read):
    found = read(make("bach"))
    assert found.table.groupby("label").size().to_dict() == dict.fromkeys(PREFIXES, 2)
    assert "split" not in found.table
    assert any("slides in WSI" in note for note in found.notes)


def test_the_proposed_split_goes_by_number_not_by_place(make, read):
    """268 and 132 of all 400 images; which they are does not change when some are missing."""
    assert sum(end - first for first, end in VALIDATION) == 132
    folder = make("bach")
    table = read(folder).table
    table["split"] = BACH.propose(table)
    told = {p.split("/")[-1]: s for p, s in zip(table["path"], table["split"], strict=True)}
    # Places in the list of all: 0 and 41, 100 and 141, 200 and 241, 300 and 341.
    assert told == {
        "b001.tif": "train", "b042.tif": "val", "is001.tif": "train", "is042.tif": "val",
        "iv001.tif": "train", "iv042.tif": "val", "n001.tif": "train", "n042.tif": "train",
    }  # fmt: skip
    (folder / "Photos" / "Benign" / "b001.tif").unlink()
    table = read(folder).table
    again = zip(table["path"], BACH.propose(table), strict=True)
    assert {path.split("/")[-1]: split for path, split in again} == {
        name: split for name, split in told.items() if name != "b001.tif"
    }


def test_damage(make, read, said):
    folder = make("bach")
    (folder / "Photos" / "Benign" / "b001.tif").rename(folder / "Photos" / "InSitu" / "b001.tif")
    (folder / "Photos" / "Normal").rename(folder / "Photos" / "Healthy")
    text = said(read(folder))
    assert "class folder Photos/Normal is missing" in text
    assert "files in InSitu that are not called is001.tif and so on: Photos/InSitu/b001.tif" in text
    assert "Benign: found 1 of 2 images" in text


def test_an_image_of_another_size_is_named(make, read):
    folder = make("bach")
    picture(folder / "Photos" / "Benign" / "b001.tif", (1024, 768))
    (problem,) = check_files(read(folder), "tiles", "all")
    assert problem.what == "of 8 tiles read, not 2048 x 1536 px"
    assert problem.files[0].endswith("b001.tif (1024 x 768)")
