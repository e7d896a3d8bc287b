"""Datasets give uint8 tiles with the right pixels and labels."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pathology.data.grids import opening_mpp
from pathology.data.modules import TileDataModule
from pathology.data.slide_pool import SlidePool
from pathology.data.tiles import ImageTiles, SlideTiles, label_indices
from pathology.errors import ManifestError, StampMismatchError
from pathology.geometry import Mpp, Size
from pathology.slides import open_slide
from pathology.stain import (
    StainNormaliser,
    StainProfile,
    StainSettings,
    fit_profile,
    reference_profile,
)
from pathology.tiling import GridSource, TileGrid

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
    with pytest.raises(ManifestError, match=r"must be square, got 10 x 12 px.*crop centre"):
        ImageTiles(table, CLASSES, size_px=8)[0]


@pytest.mark.parametrize("shape", [(10, 15, 3), (15, 10, 3)])
def test_the_middle_of_an_oblong_image_is_kept_when_asked(tmp_path, rng, shape):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    table = pd.DataFrame({"path": [str(tmp_path / "x.png")], "label": ["normal"]})
    dataset = ImageTiles(table, CLASSES, crop="centre")
    # 5 px are left away: 2 before and 3 behind.
    kept = pixels[:, 2:12] if shape[1] == 15 else pixels[2:12]
    assert torch.equal(dataset[0]["image"], torch.from_numpy(kept).permute(2, 0, 1))
    assert dataset.first_size == (10, 10)
    assert ImageTiles(table, CLASSES, size_px=6, crop="centre")[0]["image"].shape == (3, 6, 6)


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


def test_labels_by_two_fractions_do_not_mix(cohort, cohort_tiles, tmp_path):
    table = pd.read_csv(cohort)
    table["path"] = [str(cohort.parent / name) for name in table["path"]]
    for i, name in enumerate(table["slide_id"]):
        grid = TileGrid.load(cohort_tiles / f"{name}.parquet")
        grid = grid.with_made(label={"min_fraction": 0.5 if i else 0.75, "min_annotated": 0.5})
        grid.save(tmp_path / f"{name}.parquet")
    said = r"labelled by .*, min_fraction 0\.5, others by .*, min_fraction 0\.75; .*--label-frac"
    with pytest.raises(StampMismatchError, match=said):
        SlideTiles(table, tmp_path, CLASSES)
    # Where one does not say, as of labels of one's own, there is nothing to compare.
    first = tmp_path / f"{table['slide_id'][0]}.parquet"
    grid = TileGrid.load(first)
    grid.with_columns(label=grid.columns["label"]).save(first)
    assert len(SlideTiles(table, tmp_path, CLASSES)) > 0


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


@pytest.fixture
def slides(cohort):
    """The cohort's manifest, as it is read."""
    table = pd.read_csv(cohort)
    table["path"] = [str(cohort.parent / name) for name in table["path"]]
    return table


def test_a_batch_is_read_slide_by_slide_and_given_as_asked(slides, cohort_tiles, rng):
    dataset = SlideTiles(slides, cohort_tiles, CLASSES)
    opened = []

    def opener(number):
        opened.append(number)
        return dataset._open(number)

    dataset.slides = SlidePool(opener, capacity=1)
    asked = rng.choice(len(dataset), 24, replace=False)
    asked = [*asked.tolist(), int(asked[0])]
    samples = dataset.__getitems__(asked)
    assert sorted(opened) == [0, 1, 2]
    for index, sample in zip(asked, samples, strict=True):
        assert torch.equal(sample["image"], dataset[index]["image"])
        assert sample["label"] == dataset.labels[index]


def test_few_slides_stay_open(slides, cohort_tiles):
    dataset = SlideTiles(slides, cohort_tiles, CLASSES)
    assert len(dataset.slides) == 0  # nothing was opened to index them
    dataset.slides = SlidePool(dataset._open, capacity=2)
    for slide in (0, 1, 2, 0):
        _ = dataset[int(np.flatnonzero(dataset.owner == slide)[0])]
        assert len(dataset.slides) <= 2


def test_the_index_is_of_few_bytes_and_no_objects(slides, cohort_tiles):
    dataset = SlideTiles(slides, cohort_tiles, CLASSES)
    columns = [dataset.owner, dataset.x, dataset.y, dataset.labels]
    assert all(len(column) == len(dataset) for column in columns)
    assert sum(column.itemsize for column in columns) <= 24
    assert not any(column.dtype.hasobject for column in columns)


def test_nearby_tiles_are_near(slides, cohort_tiles):
    dataset = SlideTiles(slides, cohort_tiles, CLASSES)
    order = dataset.nearby()
    assert sorted(order) == list(range(len(dataset)))
    assert (np.diff(dataset.owner[order]) >= 0).all()
    for start in range(0, len(order) - 32, 32):
        stretch = order[start : start + 32]
        if len(np.unique(dataset.owner[stretch])) == 1:
            # At most a block of 6 tiles of 64 px high, but for the end of a strip.
            assert len(np.unique(dataset.y[stretch])) <= 12


def test_a_slide_that_was_replaced_is_refused(slides, cohort_tiles, tmp_path):
    table = slides.iloc[:1].copy()
    table["path"] = slides["path"].iloc[1]
    with pytest.raises(StampMismatchError, match="tiles are of slide train_000 with stamp"):
        SlideTiles(table, cohort_tiles, CLASSES)
    path = tmp_path / "train_000.tif"
    path.write_bytes(Path(slides["path"].iloc[0]).read_bytes())
    table["path"] = str(path)
    dataset = SlideTiles(table, cohort_tiles, CLASSES)
    path.write_bytes(Path(slides["path"].iloc[1]).read_bytes())  # while training
    with pytest.raises(StampMismatchError, match="tile the slide anew"):
        dataset[0]


def test_a_slide_opened_at_another_mpp_than_tiled_is_refused(slides, cohort_tiles):
    dataset = SlideTiles(slides.iloc[:1].assign(mpp=0.25), cohort_tiles, CLASSES)
    with pytest.raises(StampMismatchError, match=r"opened as .*x=0.25.*, tiled as .*x=0.5"):
        dataset[0]


@pytest.mark.parametrize(
    ("listed", "source", "wanted"),
    [
        (0.25, Mpp(0.25, 0.25), 0.25),
        (float("nan"), Mpp(0.5, 0.5), 0.5),
        (None, Mpp(0.5, 0.4), (0.5, 0.4)),
    ],
)
def test_what_was_said_when_tiling_still_holds(listed, source, wanted):
    given = GridSource("s", "stamp", Size(10, 10), source, "given")
    assert opening_mpp({"mpp": listed}, given) == wanted
    known = GridSource("s", "stamp", Size(10, 10), source, "openslide")
    assert opening_mpp({"mpp": listed}, known) == (listed if listed == 0.25 else None)


def test_slides_are_opened_in_the_colours_they_were_tiled_for(
    slides, cohort_tiles, tmp_path, monkeypatch
):
    for path in cohort_tiles.glob("*.parquet"):
        grid = TileGrid.load(path)
        spec = replace(grid.spec, colour="srgb")
        replace(grid, spec=spec).save(tmp_path / path.name)
    dataset = SlideTiles(slides, tmp_path, CLASSES)
    asked = []

    def note(path, mpp=None, *, colour="stored"):
        asked.append(colour)
        return open_slide(path, mpp)  # these slides hold no profile

    monkeypatch.setattr("pathology.data.tiles.open_slide", note)
    _ = dataset[0]
    assert asked == ["srgb"]


def test_tiles_are_normalised_by_the_profile_of_their_slide(slides, cohort_tiles, tmp_path):
    target = reference_profile("macenko")
    target.save(tmp_path / "target.json")
    for slide_id, path in zip(slides["slide_id"], slides["path"], strict=True):
        grid = TileGrid.load(cohort_tiles / f"{slide_id}.parquet")
        with open_slide(path) as slide:
            fit_profile(slide, grid, StainSettings(tiles=8)).save(tmp_path / f"{slide_id}.json")
    plain = SlideTiles(slides, cohort_tiles, CLASSES)
    dataset = SlideTiles(slides, cohort_tiles, CLASSES, stains=tmp_path)
    last = len(dataset) - 1
    profile = StainProfile.load(tmp_path / f"{slides['slide_id'].iloc[-1]}.json")
    wanted = StainNormaliser(target)(plain[last]["image"][None], profile)[0]
    assert not torch.equal(wanted, plain[last]["image"])
    assert torch.equal(dataset[last]["image"], wanted)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[last]["image"], wanted)


def test_rows_of_an_array_file_are_tiles(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "tiles.npy", pixels)
    table = pd.DataFrame(
        {"path": [str(tmp_path / "tiles.npy")] * 2, "label": CLASSES, "index": [4, 0]}
    )
    dataset = ImageTiles(table, CLASSES)
    assert len(dataset.files) == 1
    for i, row in enumerate(table["index"]):
        assert np.array_equal(dataset[i]["image"].permute(1, 2, 0).numpy(), pixels[row])
        assert dataset[i]["label"] == i
