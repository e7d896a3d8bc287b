"""Datasets give uint8 tiles with the right pixels and labels."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pathology.data.modules import TileDataModule
from pathology.data.tiles import ImageTiles, SlideTiles, label_indices
from pathology.errors import ManifestError, StampMismatchError
from pathology.slides import open_slide
from pathology.tiling import TileGrid

CLASSES = ["normal", "tumour"]


@pytest.fixture
def image_table(tmp_path, rng):
    paths, pixels = [], []
    for i in range(4):
        pixels.append(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels[i]).save(paths[i])
    return pd.DataFrame({"path": paths, "label": ["normal", "tumour"] * 2}), pixels


def test_image_tiles_are_the_files(image_table):
    table, pixels = image_table
    dataset = ImageTiles(table, CLASSES)
    sample = dataset[1]
    assert sample["image"].dtype == torch.uint8
    assert torch.equal(sample["image"], torch.from_numpy(pixels[1]).permute(2, 0, 1))
    assert [dataset[i]["label"] for i in range(4)] == [0, 1, 0, 1]


def test_image_tiles_can_be_resized(image_table):
    assert ImageTiles(image_table[0], CLASSES, size_px=7)[0]["image"].shape == (3, 7, 7)


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"not an image")
    table = pd.DataFrame({"path": [str(tmp_path / "x.png")], "label": ["normal"]})
    with pytest.raises(ManifestError, match=r"x\.png: not a readable image"):
        ImageTiles(table, CLASSES)[0]


def test_an_oblong_image_is_refused(tmp_path):
    Image.new("RGB", (10, 12)).save(tmp_path / "x.png")
    table = pd.DataFrame({"path": [str(tmp_path / "x.png")], "label": ["normal"]})
    with pytest.raises(ManifestError, match="must be square, got 10 x 12 px"):
        ImageTiles(table, CLASSES, size_px=8)[0]


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ManifestError, match="'stroma' is not one of the classes normal, tumour"):
        label_indices(pd.Series(["normal", "stroma"]), CLASSES)


def test_slide_tiles_are_what_the_slide_reads(cohort, cohort_tiles):
    table = pd.read_csv(cohort).query("split == 'train'").reset_index(drop=True)
    table["path"] = [str(cohort.parent / name) for name in table["path"]]
    dataset = SlideTiles(table, cohort_tiles, CLASSES)
    assert set(dataset.labels.tolist()) == {0, 1}
    index = len(dataset) // 2
    slide_row = table.iloc[dataset.owner[index]]
    grid = TileGrid.load(cohort_tiles / f"{slide_row['slide_id']}.parquet")
    tile = next(t for t in grid if (t.box.x, t.box.y) == (dataset.x[index], dataset.y[index]))
    assert CLASSES[dataset[index]["label"]] == tile.extra["label"]
    with open_slide(slide_row["path"]) as slide:
        pixels = slide.read(tile.box, grid.spec.mpp)
    assert np.array_equal(dataset[index]["image"].permute(1, 2, 0).numpy(), pixels)


def test_slide_tiles_travel_to_workers(cohort, cohort_tiles):
    table = pd.read_csv(cohort).query("split == 'val'").reset_index(drop=True)
    table["path"] = [str(cohort.parent / name) for name in table["path"]]
    dataset = SlideTiles(table, cohort_tiles, CLASSES)
    first = dataset[0]["image"]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0]["image"], first)


def test_tiles_of_two_specifications_do_not_mix(cohort, cohort_tiles, tmp_path):
    table = pd.read_csv(cohort)
    table["path"] = [str(cohort.parent / name) for name in table["path"]]
    for i, name in enumerate(table["slide_id"]):
        grid = TileGrid.load(cohort_tiles / f"{name}.parquet")
        if i:
            spec = type(grid.spec)(**grid.spec.to_dict() | {"size_px": 32})
            grid = TileGrid(spec, grid.source, grid.x, grid.y, grid.tissue, grid.columns)
        grid.save(tmp_path / f"{name}.parquet")
    with pytest.raises(StampMismatchError, match="tile all slides with one specification"):
        SlideTiles(table, tmp_path, CLASSES)


def test_missing_tiles_say_which_command_makes_them(cohort, tmp_path):
    data = TileDataModule(str(cohort), CLASSES, tiles=str(tmp_path))
    with pytest.raises(ManifestError, match="run `pathology tile`"):
        data.setup("fit")


def test_balance_draws_classes_equally(image_table, tmp_path):
    table, _ = image_table
    table = pd.concat([table.iloc[:1]] * 30 + [table.iloc[1:2]] * 2, ignore_index=True)
    table["split"] = "train"
    table.to_csv(tmp_path / "tiles.csv", index=False)
    data = TileDataModule(
        str(tmp_path / "tiles.csv"), CLASSES, batch_size=8, num_workers=0, balance=True
    )
    torch.manual_seed(0)
    labels = torch.cat(
        [batch["label"] for _ in range(8) for batch in data.loader("train", training=True)]
    )
    assert 0.35 < labels.float().mean() < 0.65  # 2 of 32 without balance


def test_a_split_without_some_class_is_refused(image_table, tmp_path):
    table, _ = image_table
    table.assign(split=["train", "train", "val", "train"]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ManifestError, match="split 'val' has no tile of class 'tumour'"):
        TileDataModule(str(tmp_path / "t.csv"), CLASSES).setup("fit")
