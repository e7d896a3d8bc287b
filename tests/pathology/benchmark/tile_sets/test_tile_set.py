"""A tile set as it lies in a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathology.benchmark.tile_sets import MASK_BITS, TileSet, load_tile_set
from pathology.benchmark.tile_sets.writing import Tile, found_set, write_set
from pathology.errors import ManifestError, StampMismatchError

CLASSES = ("normal", "tumour")
SIDE = 8


def tile(number: int, split: str, label: str) -> Tile:
    image = np.full((SIDE, SIDE, 3), number, np.uint8)
    evidence, region = np.zeros((2, SIDE, SIDE), bool)
    evidence[0, number % SIDE] = region[:2] = label == "tumour"
    return Tile(
        f"{split}_{number}", image, label, split, f"p{number // 2}",
        {"evidence": evidence, "region": region}, {"stratum": str(number % 2)},
    )  # fmt: skip


def all_tiles() -> list[Tile]:
    names = [(split, label) for split in ("train", "val", "test") for label in CLASSES * 2]
    return [tile(i, split, label) for i, (split, label) in enumerate(names)]


def write(folder: Path, tiles: list[Tile] | None = None, **made_by: object) -> TileSet:
    masks = ("evidence", "region")
    tiles = all_tiles() if tiles is None else tiles
    return write_set(folder, {"by": "a test"} | made_by, CLASSES, SIDE, "tumour", masks, tiles)


def test_a_set_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = write(tmp_path / "set")
    assert (made.name, made.classes, made.size_px, made.positive) == ("set", CLASSES, 8, "tumour")
    test = made.split("test")
    wanted = all_tiles()[8:]
    assert test.names == tuple(t.name for t in wanted)
    assert test.patients == tuple(t.patient for t in wanted)
    np.testing.assert_array_equal(test.images, np.stack([t.image for t in wanted]))
    np.testing.assert_array_equal(test.labels, [0, 1, 0, 1])
    for name in ("evidence", "region"):
        np.testing.assert_array_equal(test.masks[name], np.stack([t.masks[name] for t in wanted]))
    assert list(test.columns["stratum"]) == ["0", "1", "0", "1"]


def test_taking_tiles_takes_all_that_belongs_to_them(tmp_path: Path) -> None:
    test = write(tmp_path / "set").split("test")
    some = test.take(np.array([3, 0]))
    assert some.names == (test.names[3], test.names[0])
    np.testing.assert_array_equal(some.images[0], test.images[3])
    np.testing.assert_array_equal(some.masks["evidence"][0], test.masks["evidence"][3])
    assert list(some.columns["stratum"]) == ["1", "0"]
    assert test.take(test.labels == 1).names == (test.names[1], test.names[3])


def test_bits_of_masks_are_the_documented_ones(tmp_path: Path) -> None:
    made = write(tmp_path / "set")
    stored = np.asarray(Image.open(made.folder / made.table["mask"][1]))
    assert stored[0, 1] == (1 << MASK_BITS["evidence"]) + (1 << MASK_BITS["region"])
    assert stored[1, 1] == 1 << MASK_BITS["region"]
    assert stored[3, 3] == 0


def test_a_set_of_the_same_stamp_is_found_and_another_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    assert found_set(folder, {"by": "a test", "seed": 1}) is None
    made = write(folder, seed=1)
    found = found_set(folder, {"by": "a test", "seed": 1})
    assert found is not None
    assert found.stamp == made.stamp
    with pytest.raises(StampMismatchError, match="made with seed 1, wanted 2"):
        found_set(folder, {"by": "a test", "seed": 2})


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing():  # type: ignore[no-untyped-def]
        yield all_tiles()[0]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_set(tmp_path / "set", {}, CLASSES, SIDE, None, ("evidence", "region"), failing())
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_a_class_is_refused(tmp_path: Path) -> None:
    tiles = [t for t in all_tiles() if t.split != "val" or t.label == "normal"]
    with pytest.raises(ManifestError, match="split 'val' would have no tile of class 'tumour'"):
        write(tmp_path / "set", tiles)


def test_two_tiles_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"two tiles are called images/test_9\.png"):
        write(tmp_path / "set", [*all_tiles(), all_tiles()[9]])


def test_folders_that_are_no_sets_say_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"not a tile set \(no set.json\)"):
        load_tile_set(tmp_path)
    made = write(tmp_path / "set")
    told = json.loads((made.folder / "set.json").read_text())
    (made.folder / "set.json").write_text(json.dumps({k: told[k] for k in ("name", "stamp")}))
    with pytest.raises(ManifestError, match="not a tile set"):
        load_tile_set(made.folder)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    made = write(tmp_path / "set")
    Image.new("RGB", (9, 9)).save(made.folder / made.table["path"][0])
    with pytest.raises(ManifestError, match="9 x 9 px of mode RGB, wanted 8 px"):
        made.split("train")
    with pytest.raises(ValueError, match="split must be one of train, val, test"):
        made.split("all")
