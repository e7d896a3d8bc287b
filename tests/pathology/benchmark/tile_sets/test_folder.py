"""Tiles of one's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.benchmark.tile_sets import make_maker, make_tile_set
from pathology.data.manifest import read_tile_manifest
from pathology.errors import LeakageError, ManifestError

CLASSES = ["good", "bad"]


def data(folder: Path, masks: bool = False, **changes: Any) -> dict[str, Any]:
    """A folder of 40 images of 16 px: 30 train of 10 people, 10 test of 5; its settings."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(40):
        label, split = CLASSES[i % 2], "train" if i < 30 else "test"
        person = f"t{i // 3}" if i < 30 else f"e{i // 2}"
        pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        row = {"file": f"{i}.png", "label": label, "split": split, "person": person}
        if masks:
            row["mask"] = ""
            if label == "bad":
                mask = np.zeros((16, 16), np.uint8)
                mask[:6, :8] = 7
                Image.fromarray(mask).save(folder / "images" / f"{i}_mask.png")
                row["mask"] = f"{i}_mask.png"
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return {
        "kind": "folder", "path": str(folder), "classes": CLASSES, "size_px": 8,
        "columns": {"patient_id": "person"},
    } | changes  # fmt: skip


def test_images_are_resized_and_val_is_split_off_by_patient(tmp_path: Path) -> None:
    made = make_tile_set(data(tmp_path / "mine"), tmp_path / "set")
    assert made.table["split"].value_counts().to_dict() == {"train": 24, "val": 6, "test": 10}
    assert (made.table.groupby("patient_id")["split"].nunique() == 1).all()
    test = made.split("test")
    stems = [int(name.split("_")[0]) for name in test.names]
    assert sorted(stems) == list(range(30, 40))
    np.testing.assert_array_equal(test.labels, [i % 2 for i in stems])
    assert [f"e{i // 2}" for i in stems] == list(test.patients)
    original = Image.open(tmp_path / "mine" / "images" / f"{stems[0]}.png")
    resized = original.resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(test.images[0], np.asarray(resized))
    assert (made.positive, made.masks) == ("bad", ())


def test_masks_are_evidence_of_the_positive_class(tmp_path: Path) -> None:
    made = make_tile_set(data(tmp_path / "mine", masks=True), tmp_path / "set")
    test = made.split("test")
    wanted = np.zeros((8, 8), bool)
    wanted[:3, :4] = True
    for label, mask in zip(test.labels, test.masks["evidence"], strict=True):
        np.testing.assert_array_equal(mask, wanted if label else np.zeros_like(wanted))


def test_a_positive_tile_without_mask_is_refused(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine", masks=True)
    table = pd.read_csv(tmp_path / "mine" / "manifest.csv", keep_default_na=False)
    table.loc[3, "mask"] = ""
    table.to_csv(tmp_path / "mine" / "manifest.csv", index=False)
    with pytest.raises(ManifestError, match=r"3.png is bad and has no mask"):
        make_tile_set(settings, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_splits_are_renamed_and_numbers_kept(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine", tiles={"train": 10, "test": 6}, splits={"held": "test"})
    table = pd.read_csv(tmp_path / "mine" / "manifest.csv")
    table["split"] = table["split"].replace("test", "held")
    table.to_csv(tmp_path / "mine" / "manifest.csv", index=False)
    made = make_tile_set(settings, tmp_path / "set")
    assert made.table["split"].value_counts().to_dict() == {"train": 10, "val": 6, "test": 6}


def test_a_set_is_known_by_its_pixels_wherever_they_lie(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine")
    before = make_maker(settings).made_by()
    (tmp_path / "mine").rename(tmp_path / "moved")
    settings["path"] = str(tmp_path / "moved")
    assert make_maker(settings).made_by() == before
    Image.new("RGB", (16, 16)).save(tmp_path / "moved" / "images" / "5.png")
    assert make_maker(settings).made_by() != before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": ["good", "ugly"]}, ManifestError, "label 'bad' is not one of good, ugly"),
        ({"columns": {"patient_id": "who"}}, ManifestError, "column 'who' is missing; got file"),
        ({"splits": {"test": "val"}}, ManifestError, "has splits train, val, wanted train and"),
        ({"splits": {"test": "rest"}}, ValueError, "splits are train, val, test; got 'rest'"),
        ({"path": "nowhere.csv"}, ManifestError, "nowhere.csv: no such manifest"),
        ({"positive": "ugly"}, ValueError, "positive must be one of good, bad, got 'ugly'"),
        ({"classes": ["good"]}, ValueError, "two or more different names"),
        ({"classes": "ab"}, ValueError, "classes must be a list of names, got .ab."),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_tile_set(data(tmp_path / "mine", **change), tmp_path / "set")


def test_a_person_on_both_sides_is_refused_by_the_manifests_name(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine")
    table = pd.read_csv(tmp_path / "mine" / "manifest.csv")
    table.loc[39, "person"] = "t0"
    table.to_csv(tmp_path / "mine" / "manifest.csv", index=False)
    with pytest.raises(LeakageError, match=r"mine/manifest\.csv"):
        make_tile_set(settings, tmp_path / "set")


def test_tiles_that_are_not_square_are_refused(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine")
    Image.new("RGB", (16, 12)).save(tmp_path / "mine" / "images" / "7.png")
    with pytest.raises(ManifestError, match=r"7.png: tiles must be square, got 16 x 12 px"):
        make_tile_set(settings, tmp_path / "set")


def test_rows_of_an_array_file_are_images_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "all.npy", pixels)
    rows = [
        {
            "path": "all.npy",
            "index": i,
            "label": CLASSES[i % 2],
            "split": split,
            "patient_id": split,
        }
        for i, split in enumerate(["train"] * 12 + ["val"] * 6 + ["test"] * 6)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    settings = {"kind": "folder", "path": str(tmp_path), "classes": CLASSES, "size_px": 8}
    made = make_tile_set(settings, tmp_path / "set")
    found = {image.tobytes() for image in made.split("test").images}
    assert found == {image.tobytes() for image in pixels[18:]}
    read_tile_manifest(made.manifest)  # as training reads it


def test_val_is_split_off_by_tile_where_no_patient_is_known(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "all.npy", pixels)
    rows = [
        {
            "path": "all.npy",
            "index": i,
            "label": CLASSES[i % 2],
            "split": "train" if i < 24 else "test",
            "patient_id": "known" if i < 2 else "",
        }
        for i in range(30)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    settings = {"kind": "folder", "path": str(tmp_path), "classes": CLASSES, "size_px": 8}
    table = make_tile_set(settings | {"val_share": 0.25}, tmp_path / "set").table
    assert table["split"].value_counts().to_dict() == {"train": 18, "val": 6, "test": 6}
    assert table.loc[table["patient_id"] == "known", "split"].nunique() == 1


def test_a_mask_that_is_not_there_is_said(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine", masks=True)
    (tmp_path / "mine" / "images" / "3_mask.png").unlink()
    with pytest.raises(ManifestError, match=r"1 of 40 masks are missing: .*3_mask\.png; restore"):
        make_tile_set(settings, tmp_path / "set")


def test_names_of_files_may_have_a_hash(tmp_path: Path) -> None:
    settings = data(tmp_path / "mine")
    images = tmp_path / "mine" / "images"
    (images / "0.png").rename(images / "slide#0.png")
    table = pd.read_csv(tmp_path / "mine" / "manifest.csv")
    table.loc[0, "file"] = "slide#0.png"
    table.to_csv(tmp_path / "mine" / "manifest.csv", index=False)
    made = make_tile_set(settings, tmp_path / "set")
    assert made.table["path"].str.contains("slide#0_").sum() == 1
