"""Places of tiles: against brute force, for chances, and on the tiles of files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import stats

from pathology.annotations import Classes, Regions, read_regions
from pathology.errors import NoTissueError, SlideError
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide, Slide, open_slide
from pathology.slides.levels import Level
from pathology.tiling import TileGrid, TileSpec, tile_slide
from pathology.tiling.placement import grid_places, jittered_places

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[4] / "shared" / "data"))


def blank(
    width: int, height: int, mpp: float = 0.25, bounds: Box | None = None, name: str = "a"
) -> MemorySlide:
    array = np.broadcast_to(np.uint8(255), (height, width, 3))
    return MemorySlide(array, mpp, name, bounds=bounds)


def tissue_of(slide: Slide, values: np.ndarray) -> SlideMap:
    return SlideMap(values, Box(0, 0, *slide.size), slide.mpp)


def everywhere(slide: Slide) -> SlideMap:
    return tissue_of(slide, np.ones((1, 1)))


def corners(grid: TileGrid) -> list[tuple[float, float]]:
    return list(zip(grid.x.tolist(), grid.y.tolist(), strict=True))


# --- random


def test_random_places_are_those_that_brute_force_finds() -> None:
    slide = blank(60, 50, bounds=Box(4, 2, 50, 40))
    values = np.random.default_rng(3).integers(0, 2, (50, 60)).astype(float)
    values[20:] = 0
    spec = TileSpec(8, 0.25, min_tissue=0.5, placement="random", count=10_000)
    grid = tile_slide(slide, spec, tissue_of(slide, values))
    expected = [
        (x, y)
        for y in range(2, 42 - 8 + 1)
        for x in range(4, 54 - 8 + 1)
        if values[y : y + 8, x : x + 8].mean() >= 0.5
    ]
    assert corners(grid) == expected  # sorted by rows, then columns
    assert 100 < len(expected) < 1000


def test_random_places_are_equally_likely() -> None:
    slide = blank(20, 16)
    values = np.ones((16, 20))
    values[:, :9] = 0
    count = 12
    found: dict[tuple[float, float], int] = {}
    for seed in range(400):
        spec = TileSpec(
            8, 0.25, min_tissue=0.5, placement="random", count=count, seed=seed, keep_edges=False
        )
        places = corners(tile_slide(slide, spec, tissue_of(slide, values)))
        assert len(set(places)) == count
        for place in places:
            found[place] = found.get(place, 0) + 1
    assert set(found) == {(x, y) for x in range(5, 13) for y in range(9)}
    assert stats.chisquare(list(found.values())).pvalue > 1e-4


def test_random_places_on_a_large_slide() -> None:
    slide = blank(50_000, 40_000)
    values = np.zeros((40, 50))
    values[10:20, 30:40] = 1  # one twentieth of the slide
    spec = TileSpec(224, 0.5, placement="random", count=2000)
    grid = tile_slide(slide, spec, tissue_of(slide, values))
    assert len(set(corners(grid))) == 2000
    assert grid.tissue.min() >= 0.5
    # Whole pixels at 0.5 um are pairs of level 0.
    assert not (np.concatenate([grid.x, grid.y]) % 2).any()
    centre_x, centre_y = grid.x + 224, grid.y + 224
    for centre, low in ((centre_x, 30_000), (centre_y, 10_000)):
        inside = centre[(centre > low) & (centre < low + 10_000)]
        assert len(inside) > 1800
        assert stats.kstest((inside - low) / 10_000, "uniform").pvalue > 1e-4
    order = np.lexsort((grid.x, grid.y))
    np.testing.assert_array_equal(order, np.arange(2000))


@pytest.mark.parametrize("placement", ["random", "jittered"])
def test_what_is_drawn_depends_on_seed_and_content_alone(placement: str) -> None:
    count = 20 if placement == "random" else None
    spec = TileSpec(32, 0.25, placement=placement, count=count)
    slide = blank(640, 480)
    first = corners(tile_slide(slide, spec, everywhere(slide)))
    renamed = blank(640, 480, name="b")
    assert corners(tile_slide(renamed, spec, everywhere(renamed))) == first
    again = corners(tile_slide(slide, replace(spec, seed=1), everywhere(slide)))
    assert again != first
    array = np.full((480, 640, 3), 255, np.uint8)
    array[0, 0] = 0
    other = MemorySlide(array, 0.25, "a")
    assert corners(tile_slide(other, spec, everywhere(other))) != first


def test_no_random_place_has_tissue() -> None:
    slide = blank(4000, 3000)
    spec = TileSpec(100, 0.25, placement="random", count=5)
    with pytest.raises(NoTissueError, match=r"random places tried.*at most 0\.000"):
        tile_slide(slide, spec, tissue_of(slide, np.zeros((1, 1))))


# --- jittered


@pytest.mark.parametrize("overlap_px", [0, 12])
def test_jittered_tiles_stay_near_their_places_and_on_the_slide(overlap_px: int) -> None:
    slide = blank(2000, 1500, bounds=Box(100, 50, 1700, 1300))
    spec = TileSpec(40, 0.5, overlap_px, min_tissue=0, placement="jittered")
    places = zip(jittered_places(slide, spec), grid_places(slide, spec), (100, 50), strict=True)
    half = (40 - overlap_px) / 2 * 2  # level-0 pixels
    for ours, theirs, start in places:
        off = ours - theirs
        assert np.abs(off).max() == half
        assert not ((ours - start) % 2).any()  # whole pixels at 0.5 um
        assert stats.kstest(off[np.abs(off) < half] / half / 2 + 0.5, "uniform").pvalue > 1e-4
    moved = tile_slide(slide, spec, everywhere(slide))
    assert len(moved) == len(grid_places(slide, spec)[0])
    boxes = moved.boxes()
    assert boxes[:, 0].min() >= 100
    assert boxes[:, 1].min() >= 50
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 1800
    assert (boxes[:, 1] + boxes[:, 3]).max() <= 1350


def test_jittered_tiles_need_tissue_where_they_are() -> None:
    slide = blank(800, 800)
    values = np.zeros((8, 8))
    values[:, :4] = 1
    spec = TileSpec(100, 0.25, min_tissue=0.9, placement="jittered")
    grid = tile_slide(slide, spec, tissue_of(slide, values))
    assert (grid.x + 100 <= 410).all()
    assert (grid.tissue >= 0.9 - 1e-6).all()


# --- annotated


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[MemorySlide, Regions]:
    """A triangle, a square with a hole, and a class that is not on the slide."""
    slide = blank(2000, 1000)
    ring = [[1000, 100], [1800, 100], [1800, 900], [1000, 900], [1000, 100]]
    hole = [[1200, 300], [1600, 300], [1600, 700], [1200, 700], [1200, 300]]
    triangle = [[100, 100], [700, 100], [100, 900], [100, 100]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": coordinates},
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, coordinates in (("Tumor", [triangle]), ("Stroma", [ring, hole]))
    ]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    classes = Classes.of({"tumour": ["Tumor"], "stroma": ["Stroma"], "necrosis": ["Necrosis"]})
    return slide, read_regions(path, slide, classes)


def test_annotated_tiles_are_centred_in_their_regions(
    drawn: tuple[MemorySlide, Regions],
) -> None:
    slide, regions = drawn
    spec = TileSpec(64, 0.25, min_tissue=0, placement="annotated", count=300)
    grid = tile_slide(slide, spec, everywhere(slide), regions)
    names = grid.columns["region"]
    assert [(names == n).sum() for n in ("tumour", "stroma", "necrosis")] == [300, 300, 0]
    x, y = grid.x + 32, grid.y + 32
    tumour = names == "tumour"
    # On whole pixels: half a pixel outside at most.
    assert ((x[tumour] - 100) / 600 + (y[tumour] - 100) / 800 <= 1 + 0.5 / 600 + 0.5 / 800).all()
    assert (x[tumour] >= 99.5).all()
    in_hole = (abs(x[~tumour] - 1400) < 199.5) & (abs(y[~tumour] - 500) < 199.5)
    assert not in_hole.any()
    for start in (grid.x, grid.y):
        np.testing.assert_array_equal(start, np.rint(start))
    assert len(set(corners(grid))) == 600
    # Uniform over the triangle: half of it lies left of the line that halves its area.
    left = (x[tumour] < 100 + 600 * (1 - 0.5**0.5)).mean()
    assert abs(left - 0.5) < 4 * (0.25 / 300) ** 0.5


def test_annotated_tiles_need_tissue_and_stay_on_the_slide(
    drawn: tuple[MemorySlide, Regions],
) -> None:
    slide, regions = drawn
    values = np.ones((10, 20))
    values[:, :4] = 0  # left of x = 400 there is none
    spec = TileSpec(256, 0.25, min_tissue=0.5, placement="annotated", count=50)
    grid = tile_slide(slide, spec, tissue_of(slide, values), regions)
    assert (grid.x + 128 >= 400 - 1).all()
    boxes = grid.boxes()
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, 1] + 256 <= 1000).all()
    with pytest.raises(NoTissueError, match="annotated places tried"):
        tile_slide(slide, spec, tissue_of(slide, np.zeros((1, 1))), regions)
    with pytest.raises(ValueError, match="needs regions"):
        tile_slide(slide, spec, everywhere(slide))


def test_another_class_does_not_move_the_tiles_of_the_first(
    drawn: tuple[MemorySlide, Regions], tmp_path: Path
) -> None:
    slide, regions = drawn
    alone = read_regions(
        tmp_path / "a.geojson", slide, Classes.of({"tumour": ["Tumor"], "rest": ["*"]})
    )
    spec = TileSpec(64, 0.25, placement="annotated", count=25)
    both, one = (tile_slide(slide, spec, everywhere(slide), r) for r in (regions, alone))
    both, one = (grid.select(grid.columns["region"] == "tumour") for grid in (both, one))
    assert corners(both) == corners(one)
    assert len(both) == 25


def test_tiles_are_in_order_whatever_their_placement(drawn: tuple[MemorySlide, Regions]) -> None:
    slide, regions = drawn
    for placement, count in (("random", 50), ("jittered", None), ("annotated", 40), ("grid", None)):
        spec = TileSpec(64, 0.25, placement=placement, count=count)
        grid = tile_slide(slide, spec, everywhere(slide), regions)
        np.testing.assert_array_equal(np.lexsort((grid.x, grid.y)), np.arange(len(grid)))
    assert len(grid) > 100


# --- on the file's own tiles


def stored(slide: MemorySlide, *tiles: tuple[int, int] | None) -> MemorySlide:
    slide.levels = [
        Level(level.width, level.height, level.downsample, tile)
        for level, tile in zip(slide.levels, tiles, strict=True)
    ]
    return slide


def test_tiles_begin_on_stored_tiles_within_the_bounds() -> None:
    slide = stored(blank(1000, 900, bounds=Box(130, 70, 700, 600)), (64, 48))
    spec = TileSpec(192, 0.25, min_tissue=0, align="file")
    grid = tile_slide(slide, spec, everywhere(slide))
    assert sorted(set(grid.x)) == [192, 384, 576]
    assert sorted(set(grid.y)) == [96, 288]
    # Kept edges cover the bounds, from the stored tile in which they begin.
    grid = tile_slide(slide, replace(spec, keep_edges=True), everywhere(slide))
    assert sorted(set(grid.x)) == [128, 320, 512, 704]
    assert sorted(set(grid.y)) == [48, 240, 432, 624]
    # Half of a tile is a whole stored one in both directions: 96 = 1.5 x 64 is not.
    with pytest.raises(SlideError, match=r"size_px - overlap_px 96 .* covers 96 x 96 pixels of"):
        tile_slide(slide, replace(spec, overlap_px=96), everywhere(slide))


def test_the_plane_that_will_be_read_decides() -> None:
    array = np.full((1200, 1600, 3), 200, np.uint8)
    slide = stored(MemorySlide(array, 0.25, levels=(1, 4)), (100, 100), (64, 64))
    spec = TileSpec(64, 1.0, min_tissue=0, align="file")
    grid = tile_slide(slide, spec, everywhere(slide))
    assert sorted(set(grid.x)) == [0, 256, 512, 768, 1024, 1280]
    # At 0.5 um level 0 is read: 100 px are 200 of it.
    grid = tile_slide(slide, TileSpec(100, 0.5, min_tissue=0, align="file"), everywhere(slide))
    assert sorted(set(grid.y)) == [0, 200, 400, 600, 800, 1000]


def test_what_does_not_fit_is_said_in_numbers() -> None:
    slide = stored(blank(2000, 2000, 0.2528), (256, 256))
    with pytest.raises(SlideError) as caught:
        tile_slide(slide, TileSpec(256, 0.25, align="file"), everywhere(slide))
    message = str(caught.value)
    assert "size_px 256 at 0.25 um/px covers 253.165 x 253.165 pixels of plane 0" in message
    assert "whose tiles have 256 x 256; ask for a multiple of 256 at mpp 0.2528" in message
    assert len(tile_slide(slide, TileSpec(256, 0.2528, align="file"), everywhere(slide))) == 49
    with pytest.raises(SlideError, match="plane 0 has none; use align='bounds'"):
        tile_slide(blank(500, 500), TileSpec(64, 0.25, align="file"), everywhere(slide))
    small = stored(blank(1000, 1000, bounds=Box(10, 10, 300, 300)), (256, 256))
    with pytest.raises(NoTissueError, match="no whole tile on the file's own lies within"):
        tile_slide(small, TileSpec(256, 0.25, align="file"), everywhere(small))


def test_planes_whose_pixels_are_not_square_have_no_fitting_size() -> None:
    # 579 x 621 px where level 0 has 9270 x 9936: 16.0104 and 16 level-0 pixels each.
    array = np.broadcast_to(np.uint8(200), (9936, 9270, 3))
    slide = MemorySlide(array, 0.5)
    level = Level(579, 621, (9270 / 579 * 16) ** 0.5, (64, 64))
    slide.levels = [*slide.levels, level]
    with pytest.raises(SlideError, match=r"no size fits, its pixels are 8\.00518 x 8 um"):
        tile_slide(slide, TileSpec(64, 8.05, align="file"), everywhere(slide))


@pytest.mark.real_slides
@pytest.mark.parametrize(
    ("name", "mpp", "size_px", "count"),
    [("CMU-1-Small-Region.svs", None, 240, 9 * 12), ("her2st_C2.tif", 0.5, 256, 36 * 38)],
)
def test_all_tiles_of_real_files_are_their_own(
    name: str, mpp: float | None, size_px: int, count: int
) -> None:
    path = DATA / "slides" / name
    if not path.exists():
        pytest.skip(f"slides/{name} is not under BCOS_PATHOLOGY_DATA")
    with open_slide(path, mpp) as slide:
        spec = TileSpec(size_px, slide.mpp.x, min_tissue=0, align="file")
        grid = tile_slide(slide, spec, everywhere(slide))
        assert len(grid) == count
        some = grid[::37]
        assert all(slide.encoded(tile.box, spec.mpp) for tile in some)


def test_tiles_of_a_file_are_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(0, 255, (63, 82, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 2):
            tiff.write(
                array[::factor, ::factor], tile=(256, 256), photometric="rgb", compression="jpeg",
                resolution=(20_000 / factor,) * 2, resolutionunit="CENTIMETER",
                subfiletype=factor - 1,
            )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.mpp == Mpp(0.5, 0.5)
        spec = TileSpec(256, 0.5, min_tissue=0, align="file")
        grid = tile_slide(slide, spec, everywhere(slide))
        assert corners(grid) == [(x, y) for y in (0, 256, 512) for x in range(0, 1280, 256)]
        coarse = tile_slide(slide, replace(spec, mpp=1.0), everywhere(slide))
        assert corners(coarse) == [(0, 0), (512, 0)]
        # Each is a stored tile, which can be had as it is in the file.
        assert all(slide.encoded(tile.box, 0.5) for tile in grid)
        assert all(slide.encoded(tile.box, 1.0) for tile in coarse)
