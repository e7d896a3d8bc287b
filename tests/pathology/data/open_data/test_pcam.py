"""PatchCamelyon in HDF5."""

import h5py
import numpy as np
import pytest

from pathology.data.image_files import read_image
from pathology.data.open_data import pcam
from pathology.errors import ManifestError
from tests.pathology.data.open_data.trees import make_pcam


def file(folder, split, kind):
    return folder / f"{pcam.STEM.format(split, kind)}.h5"


def test_rows_are_those_of_the_arrays(make, read):
    folder = make("pcam")
    table = read(folder).table
    assert table.groupby("split").size().to_dict() == {"train": 8, "val": 4, "test": 4}
    with h5py.File(file(folder, "valid", "x")) as x:
        row = table[table["split"] == "val"].iloc[3]
        np.testing.assert_array_equal(read_image(row["path"], row["index"]), x["x"][3])
    assert row["label"] == "tumour"
    assert row["slide_id"] == "camelyon16_valid_001"
    assert table["index"].tolist() == [*range(8), *range(4), *range(4)]


def test_without_the_csv_files_slides_are_unknown_and_that_is_said(tmp_path, read):
    found = read(make_pcam(tmp_path / "pcam", meta=False))
    assert "slide_id" not in found.table
    assert any("*_meta.csv" in note for note in found.notes)


def test_what_a_label_means_is_said(make, read):
    assert any("central 32 x 32 px" in note for note in read(make("pcam")).notes)


def test_packed_files_must_be_unpacked_first(make, read, said):
    folder = make("pcam")
    packed = file(folder, "train", "x")
    packed.rename(packed.with_name(packed.name + ".gz"))
    found = read(folder)
    name = f"{pcam.STEM.format('train', 'x')}.h5.gz"
    assert f"train: {name} is packed; unpack it first: gunzip" in said(found)
    assert set(found.table["split"]) == {"val", "test"}


@pytest.mark.parametrize("kind", ["x", "y"])
def test_a_missing_file_is_named(make, read, said, kind):
    folder = make("pcam")
    file(folder, "test", kind).unlink()
    assert f"test: camelyonpatch_level_2_split_test_{kind}.h5 is missing" in said(read(folder))


def test_a_truncated_file_is_named(make, read, said):
    folder = make("pcam")
    path = file(folder, "test", "x")
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{path}: not a readable array" in said(read(folder))


def test_images_and_labels_of_different_number(make, read, said):
    folder = make("pcam")
    with h5py.File(file(folder, "test", "y"), "w") as y:
        y["y"] = np.zeros((3, 1, 1, 1), np.uint8)
    assert "test: 4 images but 3 labels" in said(read(folder))


@pytest.mark.parametrize("labels", [np.full((4, 1, 1, 1), 2), np.zeros((4, 2))])
def test_labels_that_are_none(make, read, said, labels):
    folder = make("pcam")
    with h5py.File(file(folder, "test", "y"), "w") as y:
        y["y"] = labels
    assert "wanted one label per tile, 0 or 1" in said(read(folder))


def test_a_csv_of_another_set_is_refused(make, read):
    folder = make("pcam")
    (folder / f"{pcam.STEM.format('test', 'meta')}.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ManifestError, match="column 'wsi' is missing; got a, b"):
        read(folder)


def test_checksums_of_valid_and_test_are_not_the_swapped_ones(make, read):
    sums = {path.name: md5 for path, md5 in read(make("pcam")).checksums.items()}
    assert len(sums) == 6
    # As torchvision has them since its pull request 6644.
    assert pcam.CHECKSUMS["valid_x.h5.gz"].startswith("d5b63470")
    assert pcam.CHECKSUMS["test_x.h5.gz"].startswith("d8c2d60d")
    for split in ("train", "valid", "test"):
        for kind in "xy":
            name = f"camelyonpatch_level_2_split_{split}_{kind}.h5"
            assert sums[name] == pcam.CHECKSUMS[f"{split}_{kind}.h5"]
