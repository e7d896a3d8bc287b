"""Any folder of class folders."""

import shutil

from pathology.data.open_data.image_folder import IMAGE_FOLDER
from tests.pathology.data.open_data.trees import make_folder, picture


def test_split_folders_become_splits(make, read):
    table = read(make("folder")).table
    assert table.groupby(["split", "label"]).size().to_dict() == {
        (split, label): 2 for split in ("train", "val", "test") for label in ("normal", "tumour")
    }


def test_without_split_folders_there_is_no_split(tmp_path, read):
    found = read(make_folder(tmp_path / "mine", ()))
    assert "split" not in found.table
    assert found.classes == ("normal", "tumour")
    assert any("nothing here tells patients" in note for note in found.notes)


def test_images_may_lie_deeper(tmp_path, read):
    make_folder(tmp_path / "mine", ())
    picture(tmp_path / "mine" / "tumour" / "case 7" / "ü.png", (8, 8))
    assert len(read(tmp_path / "mine").table) == 5


def test_damage(make, read, said):
    folder = make("folder")
    shutil.rmtree(folder / "test" / "tumour")
    picture(folder / "train" / "loose.png", (8, 8))
    (folder / "train" / "empty").mkdir()
    text = said(read(folder))
    assert "test: classes that other splits have: tumour" in text
    assert "images outside the class folders, so without a label: train/loose.png" in text
    assert "class folders without an image: train/empty" in text


def test_folders_of_images_and_masks_are_no_classes(tmp_path):
    picture(tmp_path / "images" / "1.png", (8, 8))
    picture(tmp_path / "labels" / "1.png", (8, 8))
    assert not IMAGE_FOLDER.recognise(tmp_path)


def test_one_class_alone_is_none(tmp_path):
    picture(tmp_path / "tumour" / "1.png", (8, 8))
    assert not IMAGE_FOLDER.recognise(tmp_path)


def test_a_link_to_a_folder_above_does_not_go_round(tmp_path, read):
    folder = make_folder(tmp_path / "mine", ())
    (folder / "tumour" / "again").symlink_to(folder, target_is_directory=True)
    assert len(read(folder).table) >= 4
