"""What is wrong with files is found: empty, unreadable, of another size, twice, of another sum."""

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.data.open_data import check
from pathology.data.open_data.check import check_files, empty_files, md5
from pathology.data.open_data.open_set import Found
from tests.pathology.data.open_data.trees import picture, slide


@pytest.fixture
def found(tmp_path):
    """Six images, two in each split and of each label but one."""
    rows = [
        {
            "path": str(picture(tmp_path / f"{i}.png", (16, 16))),
            "label": "ab"[i % 2],
            "split": ("train", "val", "test")[i // 2],
        }
        for i in range(6)
    ]
    return Found(pd.DataFrame(rows), ("a", "b"), size_px=(16, 16))


def problems(found, kind="tiles", decode="all", **options):
    return {p.what: p.files for p in check_files(found, kind, decode, **options)}


def test_all_is_well(found):
    assert problems(found) == {}


def test_files_without_contents(found, tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").unlink()
    lost = (str(tmp_path / "1.png"), str(tmp_path / "2.png"))
    assert empty_files(found.table) == [*lost]
    assert problems(found) == {"files without contents": lost}


def test_unreadable_files(found, tmp_path):
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    (lost,) = problems(found)["of 6 tiles read, unreadable"]
    assert lost.startswith(f"{tmp_path / '3.png'}: not a readable image")
    assert problems(found, decode="none") == {}


def test_files_of_another_size(found, tmp_path):
    picture(tmp_path / "3.png", (16, 17))
    assert problems(found) == {
        "of 6 tiles read, not 16 x 16 px": (f"{tmp_path / '3.png'} (16 x 17)",)
    }


def test_a_sample_is_the_same_every_time_and_has_its_size(found, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "SAMPLE", 4)
    seen = []

    def read(path, _):
        seen.append(path)
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(check, "read_image", read)
    for _ in range(2):
        assert problems(found, decode="sample") == {}
    assert len(seen) == 8
    assert seen[:4] == seen[4:]
    assert len(set(seen)) == 4


def test_one_image_in_two_splits_is_leakage(found, tmp_path):
    (tmp_path / "4.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert problems(found) == {
        "the same image in more than one split (leakage)": (
            f"{tmp_path / '0.png'} (train) = {tmp_path / '4.png'} (test)",
        )
    }
    assert problems(found, duplicates=False) == {}


def test_one_image_under_two_labels(found, tmp_path):
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert problems(found) == {
        "the same image under more than one label": (
            f"{tmp_path / '0.png'} (a) = {tmp_path / '1.png'} (b)",
        )
    }


def test_a_copy_in_its_own_split_and_class_is_no_problem(found, tmp_path):
    found.table["label"] = "a"
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert problems(found) == {}


def test_files_that_only_begin_alike_are_told_apart(found, tmp_path):
    pixels = np.zeros((200, 200, 3), np.uint8)
    for name, value in (("0.bmp", 1), ("4.bmp", 2)):
        pixels[0] = value  # BMP is written from the bottom: the last bytes of the file
        Image.fromarray(pixels).save(tmp_path / name)
    assert (tmp_path / "0.bmp").stat().st_size > check.HEAD
    found.table.loc[[0, 4], "path"] = [str(tmp_path / "0.bmp"), str(tmp_path / "4.bmp")]
    found.size_px = None
    assert problems(found) == {}
    (tmp_path / "4.bmp").write_bytes((tmp_path / "0.bmp").read_bytes())
    assert list(problems(found)) == ["the same image in more than one split (leakage)"]


def test_rows_of_arrays_are_compared_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    images[3] = images[0]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = images
    table = pd.DataFrame(
        {
            "path": str(tmp_path / "a.h5"),
            "index": range(4),
            "label": "a",
            "split": ["train", "train", "test", "test"],
        }
    )
    path = tmp_path / "a.h5"
    assert problems(Found(table, ("a",))) == {
        "the same image in more than one split (leakage)": (
            f"{path} [0] (train) = {path} [3] (test)",
        )
    }


def test_slides_are_opened_and_read(tmp_path):
    paths = [slide(tmp_path / f"{i}.tif", mpp) for i, mpp in enumerate((0.25, None, 0.25))]
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    table = pd.DataFrame({"slide_id": ["0", "1", "2"], "path": [str(p) for p in paths]})
    found = Found(table, ())
    (lost,) = problems(found, "slides")["of 3 slides read, unreadable"]
    assert lost.startswith(str(paths[2]))
    assert found.notes == [
        "1 of 3 slides read do not say their micrometres per pixel: give --mpp to `pathology tile`,"
        " or the manifest a column mpp"
    ]


def test_regions_are_read_with_their_slide(make, read):
    folder = make("camelyon16")
    lesions = folder / "training" / "lesion_annotations"
    found = read(folder)
    assert problems(found, "slides") == {}
    whole = (lesions / "tumor_001.xml").read_text()
    for text, said in (
        ("", "tumor_001.xml"),
        (whole[:200], "tumor_001.xml"),
        (whole.replace("_0", "Necrosis"), "no class mentions 'Necrosis' (1)"),
        (whole.replace('X="', 'X="9999'), "tumor_001.xml"),
    ):
        (lesions / "tumor_001.xml").write_text(text)
        (line,) = problems(read(folder), "slides")["of 6 slides read, unreadable"]
        assert line.startswith(f"{folder / 'training' / 'tumor' / 'tumor_001.tif'}: ")
        assert said in line
        assert "tumor_001.xml" in line


def test_checksums_are_computed_when_asked(found, tmp_path):
    path = tmp_path / "0.png"
    found.checksums = {path: md5(path).upper(), tmp_path / "1.png": "0" * 32}
    assert problems(found) == {}
    (lost,) = problems(found, checksums=True)["files whose checksum is not the published one"]
    assert lost == f"{tmp_path / '1.png'} (MD5 {md5(tmp_path / '1.png')}, published {'0' * 32})"


def test_md5_is_md5(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert md5(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321


def test_progress_is_told_what_is_done(found, tmp_path):
    told = []

    def progress(items, desc, total=None):
        told.append((desc, total))
        return items

    (tmp_path / "4.png").write_bytes((tmp_path / "0.png").read_bytes())
    check_files(found, "tiles", "all", progress=progress)
    assert told[0] == ("reading", 6)
    assert [desc for desc, _ in told[1:]] == ["comparing", "comparing whole files"]
