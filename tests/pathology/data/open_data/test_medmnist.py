"""MedMNIST."""

import numpy as np
import pytest

from pathology.data.image_files import read_image
from pathology.data.open_data.medmnist import FACTS, SIDES
from pathology.errors import ManifestError
from tests.pathology.data.open_data.trees import make_medmnist


def test_rows_are_those_of_the_arrays(make, read):
    path = make("medmnist")
    found = read(path)
    table = found.table
    assert table.groupby("split").size().to_dict() == {"train": 16, "val": 8, "test": 8}
    row = table[table["split"] == "val"].iloc[5]
    assert row["label"] == "monocyte"
    with np.load(path) as file:
        np.testing.assert_array_equal(read_image(row["path"], row["index"]), file["val_images"][5])
    assert found.licence.name == "CC BY 4.0"
    assert list(found.checksums.values()) == ["7053d0359d879ad8a5505303e11de1dc"]


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_whole(name):
    facts = FACTS[name]
    assert len(facts.checksums) == len(SIDES)
    assert all(len(md5) == 32 for md5 in facts.checksums)
    assert len(set(facts.classes)) == len(facts.classes)


def test_larger_images_have_their_side_in_the_name(tmp_path, read):
    found = read(make_medmnist(tmp_path, "bloodmnist_64.npz", side=64))
    assert found.size_px == (64, 64)
    assert list(found.checksums.values()) == ["2b94928a2ae4916078ca51e05b6b800b"]


def test_a_side_that_the_name_denies(tmp_path, read, said):
    found = read(make_medmnist(tmp_path, "bloodmnist_64.npz", side=28))
    assert "images are 28 x 28 px; by its name 64 x 64" in said(found)


def test_another_set_of_the_family_has_numbers_for_classes(tmp_path, read):
    found = read(make_medmnist(tmp_path, "organamnist.npz", classes=11))
    assert found.classes == ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10")
    assert found.licence is None
    assert found.problems == []


def test_numbers_of_images(tmp_path, read, said):
    text = said(read(make_medmnist(tmp_path)))
    assert "train: found 16 of 11,959 images" in text


def test_too_few_classes_for_its_labels(tmp_path, read, said):
    found = read(make_medmnist(tmp_path, classes=9))
    assert "label 8 is there, but bloodmnist has 8 classes" in said(found)


def test_broken_files(tmp_path, read, said):
    path = make_medmnist(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    assert "bloodmnist.npz: not a readable .npz file" in said(read(path))
    path.write_bytes(b"")
    assert "bloodmnist.npz: not a readable .npz file" in said(read(path))


def test_missing_arrays_and_labels(tmp_path, read, said):
    images = np.zeros((3, 28, 28, 3), np.uint8)
    np.savez(
        tmp_path / "x.npz", train_images=images, train_labels=np.zeros((2, 1)), test_images=images
    )
    text = said(read(tmp_path / "x.npz"))
    assert "array test_labels is missing" in text
    assert "array val_images is missing" in text
    assert "train: 3 images but 2 labels" in text


def test_several_labels_an_image_are_refused(tmp_path, read):
    images = np.zeros((3, 28, 28), np.uint8)
    np.savez(tmp_path / "chestmnist.npz", train_images=images, train_labels=np.zeros((3, 14)))
    with pytest.raises(ManifestError, match="14 labels an image"):
        read(tmp_path)


def test_volumes_are_refused(tmp_path, read, said):
    images = np.zeros((3, 28, 28, 28), np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.zeros((3, 1)))
    assert "wanted images as uint8" in said(read(tmp_path))


def test_several_files_must_be_told_apart(tmp_path, read):
    make_medmnist(tmp_path)
    make_medmnist(tmp_path, "other.npz")
    with pytest.raises(ManifestError, match=r"holds bloodmnist\.npz, other\.npz"):
        read(tmp_path)
