"""Packed tiles: the pixels of the slide, bytes that anybody reads, and nothing stale."""

import gc
import io
import json
import tarfile
import warnings
from dataclasses import replace

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import torch
import webdataset
from PIL import Image

from pathology.data.shard_tiles import ShardTiles
from pathology.data.shards import Shards, decode_tile, pack_slide, shard_name
from pathology.data.tiles import SlideTiles
from pathology.errors import ManifestError, SlideOpenError, StampMismatchError
from pathology.geometry import Box
from pathology.slides import MemorySlide, open_slide
from pathology.stain import StainSettings, fit_profile, reference_profile
from pathology.tiling import GridSource, TileGrid, TileSpec

CLASSES = ["normal", "tumour"]
SIDE, COLUMNS, ROWS = 32, 5, 4


class StoredAsJpeg(MemorySlide):
    """A slide whose file holds 32 px JPEG tiles, of which some are damaged or decode otherwise."""

    wrong = frozenset()

    def encoded(self, box, mpp):
        if box.x % SIDE or box.y % SIDE or (box.x, box.y) in self.wrong:
            return None if box.x % SIDE or box.y % SIDE else jpeg(255 - self.read(box, mpp))
        return self.stored[box.x, box.y]


def jpeg(pixels):
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=80))


@pytest.fixture
def slide(rng):
    """5 x 4 stored tiles."""
    pixels = np.empty((ROWS * SIDE, COLUMNS * SIDE, 3), np.uint8)
    stored = {}
    for x in range(0, COLUMNS * SIDE, SIDE):
        for y in range(0, ROWS * SIDE, SIDE):
            coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            stored[x, y] = jpeg(coarse.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1))
            pixels[y : y + SIDE, x : x + SIDE] = decode_tile(stored[x, y])
    slide = StoredAsJpeg(pixels, mpp=0.5, slide_id="case.1")
    slide.stored = stored
    return slide


def make_grid(slide, shift=0, size_px=SIDE):
    y, x = np.mgrid[shift : ROWS * SIDE - shift : SIDE, shift : COLUMNS * SIDE - shift : SIDE]
    count = x.size
    labels = np.array([*CLASSES, ""])[np.arange(count) % 3]
    return TileGrid(
        TileSpec(size_px, 0.5), GridSource.of(slide), x.ravel(), y.ravel(), np.ones(count),
        {"label": labels},
    )  # fmt: skip


@pytest.fixture
def grid(slide):
    return make_grid(slide)


def pack(slide, grid, folder, **settings):
    folder.mkdir(exist_ok=True)
    settings = {"tiles_per_shard": 7, "quality": None} | settings
    return pack_slide(slide, grid, folder / "case.1.parquet", **settings)


def table(**columns):
    return pd.DataFrame({"slide_id": ["case.1"], "path": ["nowhere.svs"]} | columns)


def read_all(folder):
    """Bytes by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_stored_jpeg_is_taken_over_byte_by_byte(slide, grid, tmp_path):
    packed = pack(slide, grid, tmp_path)
    assert packed.passed_through == len(grid)
    assert list(packed.sizes) == [f"{shard_name('case.1')}-{i:05d}.tar" for i in range(3)]
    for i in range(len(grid)):
        data = (tmp_path / list(packed.sizes)[packed.shard[i]]).read_bytes()
        data = data[packed.offset[i] : packed.offset[i] + packed.length[i]]
        assert data == slide.stored[grid.x[i], grid.y[i]]


@pytest.mark.parametrize("shift", [0, 16])
def test_tiles_are_the_slides_pixels(slide, shift, tmp_path):
    grid = make_grid(slide, shift)
    packed = pack(slide, grid, tmp_path)
    assert packed.passed_through == (0 if shift else len(grid))
    dataset = ShardTiles(table(), tmp_path, CLASSES)
    labelled = [tile for tile in grid if tile.extra["label"]]
    assert len(dataset) == len(labelled)
    for i, tile in enumerate(labelled):
        wanted = slide.read(tile.box, 0.5)
        assert np.array_equal(dataset[i]["image"].permute(1, 2, 0).numpy(), wanted)
        assert CLASSES[dataset[i]["label"]] == tile.extra["label"]


def test_stored_jpeg_that_decodes_to_other_pixels_is_not_taken(slide, grid, tmp_path):
    slide.wrong = {(0, 0), (64, 32)}
    assert pack(slide, grid, tmp_path).passed_through == len(grid) - 2
    first = ShardTiles(table(), tmp_path, CLASSES)[0]["image"]
    assert np.array_equal(first.permute(1, 2, 0).numpy(), slide.read(grid[0].box, 0.5))


def test_a_quality_gives_smaller_shards_and_is_part_of_the_stamp(slide, tmp_path):
    grid = make_grid(slide, 16)
    exact = pack(slide, grid, tmp_path / "png")
    lossy = pack(slide, grid, tmp_path / "jpeg", quality=90)
    assert lossy.length.sum() < exact.length.sum() / 2
    assert (exact.stamp["quality"], lossy.stamp["quality"]) == (None, 90)
    dataset = ShardTiles(table(), tmp_path / "jpeg", CLASSES)
    wanted = jpeg_of(slide.read(grid[0].box, 0.5), 90)
    assert np.array_equal(dataset[0]["image"].permute(1, 2, 0).numpy(), wanted)


def jpeg_of(pixels, quality):
    """Encoded and decoded by Pillow, an independent user of the same library."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def read_by_webdataset(folder, packed, pipeline):
    """All samples, read as any user of WebDataset does."""
    urls = [str(folder / name) for name in packed.sizes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the collector
        samples = list(pipeline(webdataset.WebDataset(urls, shardshuffle=False)))
        gc.collect()
    return samples


def test_webdataset_reads_them(slide, grid, tmp_path):
    slide.wrong = {(0, 0)}  # one PNG among them
    packed = pack(slide, grid, tmp_path)
    samples = read_by_webdataset(
        tmp_path, packed, lambda tiles: tiles.decode("rgb8").to_tuple("png;jpg", "json")
    )
    assert len(samples) == len(grid)
    for tile, (pixels, place) in zip(grid, samples, strict=True):
        assert np.array_equal(pixels, slide.read(tile.box, 0.5))
        assert (place["x"], place["y"]) == (tile.box.x, tile.box.y)
        assert place["label"] == tile.extra["label"]
        assert (place["slide_id"], place["mpp"]) == ("case.1", 0.5)


def test_tiles_go_by_the_manifests_name_of_their_slide(slide, grid, tmp_path):
    packed = pack_slide(slide, grid, tmp_path / "A.7.parquet", 7, None)
    places = read_by_webdataset(
        tmp_path, packed, lambda tiles: tiles.decode("rgb8").to_tuple("json")
    )
    assert grid.source.slide_id == "case.1"
    assert {place["slide_id"] for (place,) in places} == {"A.7"} == {packed.source.slide_id}


def test_keys_are_the_datasets_own(slide, grid, tmp_path):
    packed = pack(slide, grid, tmp_path)
    keys = [s["__key__"] for s in read_by_webdataset(tmp_path, packed, lambda tiles: tiles)]
    assert len(set(keys)) == len(grid)
    assert keys[0].startswith(shard_name("case.1") + "/")


@pytest.mark.parametrize(
    "slide_id", ["TCGA-A1-0001.1F2E", "{0..9}", "fall 12 größe", "x" * 300, "a%s", "..", "a/b"]
)
def test_any_slide_has_a_plain_and_own_name(slide_id):
    name = shard_name(slide_id)
    assert name.replace("-", "").replace("_", "").isascii()
    assert name.replace("-", "").replace("_", "").isalnum()
    assert len(name) < 80
    assert name != shard_name(slide_id.replace(".", "_") + "_")


def test_the_same_tiles_are_the_same_bytes(slide, grid, tmp_path):
    pack(slide, grid, tmp_path / "a")
    pack(slide, grid, tmp_path / "b")
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b")


def test_packing_goes_on_where_it_was_stopped(slide, grid, tmp_path):
    pack(slide, grid, tmp_path / "whole")
    reads = []

    class Dies(StoredAsJpeg):
        def read(self, box, mpp):
            reads.append((box.x, box.y))
            if len(reads) == 11:
                raise SlideOpenError("gone")
            return super().read(box, mpp)

    dying = Dies(slide._planes[0], mpp=0.5, slide_id="case.1")
    dying.stored = slide.stored
    with pytest.raises(SlideOpenError):
        pack(dying, grid, tmp_path / "stopped")
    # One shard is complete; of the second nothing is left.
    assert [path.suffix for path in (tmp_path / "stopped").iterdir()] == [".tar"]
    pack(dying, grid, tmp_path / "stopped")
    assert len(reads) == 11 + len(grid) - 7
    assert read_all(tmp_path / "stopped") == read_all(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quality": 90}, "quality None, wanted 90"),
        ({"tiles_per_shard": 5}, "tiles_per_shard 7, wanted 5"),
    ],
)
def test_other_settings_do_not_mix(slide, grid, tmp_path, change, said):
    pack(slide, grid, tmp_path)
    (tmp_path / "case.1.parquet").unlink()
    with pytest.raises(StampMismatchError, match=said):
        pack(slide, grid, tmp_path, **change)


def test_other_labels_places_and_pixels_do_not_mix(slide, grid, tmp_path, rng):
    pack(slide, grid, tmp_path)
    with pytest.raises(StampMismatchError, match="places_and_labels"):
        pack(slide, grid.with_columns(label=np.full(len(grid), "tumour")), tmp_path)
    moved = TileGrid(grid.spec, grid.source, grid.x + 1, grid.y, grid.tissue, grid.columns)
    with pytest.raises(StampMismatchError, match="places_and_labels"):
        pack(slide, moved, tmp_path)
    other = MemorySlide(255 - slide._planes[0], mpp=0.5, slide_id="case.1")
    with pytest.raises(StampMismatchError, match="slide_stamp"):
        pack(other, make_grid(other), tmp_path)


def test_labels_by_two_fractions_do_not_mix(slide, grid, tmp_path):
    other = MemorySlide(slide._planes[0], mpp=0.5, slide_id="case_2")
    for one, tiles, fraction in ((slide, grid, 0.75), (other, make_grid(other), 0.5)):
        rule = {"min_fraction": fraction, "min_annotated": 0.5}
        path = tmp_path / f"{one.slide_id}.parquet"
        pack_slide(one, tiles.with_made(label=rule), path, 7, None)
    with pytest.raises(StampMismatchError, match=r"min_fraction 0\.5, others by"):
        ShardTiles(pd.DataFrame({"slide_id": ["case.1", "case_2"]}), tmp_path, CLASSES)


def test_a_foreign_tar_of_the_same_name_is_refused(slide, grid, tmp_path):
    with tarfile.open(tmp_path / f"{shard_name('case.1')}-00000.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("readme"))
    with pytest.raises(ManifestError, match="not a shard made by `pathology pack`"):
        pack(slide, grid, tmp_path)


def test_shards_that_are_missing_or_cut_short_are_named(slide, grid, tmp_path):
    first, second, _ = pack(slide, grid, tmp_path).sizes
    whole = (tmp_path / first).read_bytes()
    (tmp_path / first).write_bytes(whole[:-512])
    with pytest.raises(ManifestError, match=rf"{first}: has {len(whole) - 512} bytes, wanted"):
        ShardTiles(table(), tmp_path, CLASSES)
    (tmp_path / first).write_bytes(whole)
    (tmp_path / second).unlink()
    with pytest.raises(ManifestError, match=f"{second}: is missing"):
        ShardTiles(table(), tmp_path, CLASSES)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_tile_whose_second_half_is_gone_is_an_error_not_grey(slide, kind):
    pixels = np.ascontiguousarray(slide.read(Box(0, 0, SIDE, SIDE), 0.5))
    data = jpeg(pixels) if kind == "jpg" else bytes(imagecodecs.png_encode(pixels))
    half = len(data) // 2
    assert decode_tile(data).shape == (SIDE, SIDE, 3)
    for damaged in (data[:half], data[:half] + bytes(len(data) - half)):
        with pytest.raises(ValueError, match=r"."):
            decode_tile(damaged)


def test_grey_jpeg_has_three_channels():
    grey = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE).astype(np.uint8)
    pixels = decode_tile(bytes(imagecodecs.jpeg8_encode(grey, level=90)))
    wanted = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(grey, level=90))
    assert np.array_equal(pixels, np.repeat(wanted[..., None], 3, axis=2))


def test_damaged_bytes_are_named(slide, grid, tmp_path):
    packed = pack(slide, grid, tmp_path)
    path = tmp_path / next(iter(packed.sizes))
    data = bytearray(path.read_bytes())
    data[packed.offset[1] : packed.offset[1] + packed.length[1]] = bytes(packed.length[1])
    path.write_bytes(data)
    dataset = ShardTiles(table(), tmp_path, CLASSES)
    assert dataset[0]["label"] == 0
    with pytest.raises(ManifestError, match=rf"{path.name}: a tile cannot be read"):
        dataset[1]


def test_packed_tiles_of_another_format_are_refused(slide, grid, tmp_path):
    packed = pack(slide, grid, tmp_path)
    replace(packed, stamp=packed.stamp | {"format": 99}).save(tmp_path / "case.1.parquet")
    with pytest.raises(ManifestError, match=r"case\.1\.parquet: .*format 99, wanted 1"):
        ShardTiles(table(), tmp_path, CLASSES)


def test_a_slide_that_was_not_packed_is_named(slide, grid, tmp_path):
    pack(slide, grid, tmp_path)
    with pytest.raises(ManifestError, match=r"case_2\.parquet: no packed tiles of this slide"):
        ShardTiles(table(slide_id=["case_2"]), tmp_path, CLASSES)


def test_no_labelled_tile_is_an_error(slide, grid, tmp_path):
    pack(slide, grid, tmp_path)
    with pytest.raises(ManifestError, match="no tile is labelled as one of stroma, fat"):
        ShardTiles(table(), tmp_path, ["stroma", "fat"])


def test_a_batch_comes_in_the_order_asked_for(slide, grid, tmp_path, rng):
    pack(slide, grid, tmp_path)
    dataset = ShardTiles(table(), tmp_path, CLASSES)
    asked = [*rng.permutation(len(dataset)).tolist(), 0, 0]
    for index, sample in zip(asked, dataset.__getitems__(asked), strict=True):
        assert torch.equal(sample["image"], dataset[index]["image"])


def test_they_are_the_tiles_of_the_slides_themselves(cohort, cohort_tiles, tmp_path):
    from pathology.cli import main

    arguments = ["--slides", cohort, "--tiles", cohort_tiles, "--out", tmp_path]
    assert main(["pack", *map(str, arguments)]) == 0
    slides = pd.read_csv(cohort)
    slides["path"] = [str(cohort.parent / name) for name in slides["path"]]
    direct = SlideTiles(slides, cohort_tiles, CLASSES)
    packed = ShardTiles(slides, tmp_path, CLASSES)
    assert np.array_equal(direct.labels, packed.labels)
    assert np.array_equal(direct.owner, packed.owner)
    for i in range(0, len(direct), 97):
        assert torch.equal(direct[i]["image"], packed[i]["image"])


def test_they_are_normalised_as_the_slides_tiles_are(cohort, cohort_tiles, tmp_path):
    slides = pd.read_csv(cohort)
    slides["path"] = [str(cohort.parent / name) for name in slides["path"]]
    shards, stains = tmp_path / "shards", tmp_path / "stains"
    for folder in (shards, stains):
        folder.mkdir()
    reference_profile("macenko").save(stains / "target.json")
    for name, path in zip(slides["slide_id"], slides["path"], strict=True):
        grid = TileGrid.load(cohort_tiles / f"{name}.parquet")
        with open_slide(path) as slide:
            fit_profile(slide, grid, StainSettings(tiles=8)).save(stains / f"{name}.json")
            pack_slide(slide, grid, shards / f"{name}.parquet", 300, None)
    packed = ShardTiles(slides, shards, CLASSES, stains=stains)
    plain = ShardTiles(slides, shards, CLASSES)
    direct = SlideTiles(slides, cohort_tiles, CLASSES, stains=stains)
    for i in range(0, len(direct), 97):
        assert torch.equal(direct[i]["image"], packed[i]["image"])
        assert not torch.equal(plain[i]["image"], packed[i]["image"])


def test_a_slide_of_no_tiles_has_no_shards(slide, grid, tmp_path):
    pack(slide, grid[:0], tmp_path)
    loaded = Shards.load(tmp_path / "case.1.parquet")
    assert (len(loaded.shard), loaded.sizes) == (0, {})


def test_a_shard_says_what_it_was_made_of(slide, grid, tmp_path):
    packed = pack(slide, grid, tmp_path)
    with tarfile.open(tmp_path / next(iter(packed.sizes))) as tar:
        stamp = json.loads(tar.extractfile("__shard__/stamp.json").read())
        assert {m.mtime for m in tar} == {0}
    assert stamp == packed.stamp == Shards.load(tmp_path / "case.1.parquet").stamp
    assert stamp["spec"] == grid.spec.to_dict()


def test_an_index_of_a_million_tiles_is_small(slide, grid, tmp_path):
    pack(slide, grid, tmp_path)
    dataset = ShardTiles(table(), tmp_path, CLASSES)
    columns = (dataset.owner, dataset.shard, dataset.offset, dataset.length, dataset.labels)
    assert sum(column.itemsize for column in columns) <= 24
