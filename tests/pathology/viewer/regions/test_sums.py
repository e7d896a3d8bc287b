"""Sums of a map in a region, against every pixel cut by shapely and added in float64."""

import math
import tracemalloc

import numpy as np
import pytest
import shapely

from pathology.errors import AnnotationError
from pathology.geometry import Box
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.slide_map import SlideMap
from pathology.maps.stored_map import StoredMap
from pathology.viewer.regions.sums import region_sum
from tests.pathology.viewer.regions.made_sums import MPP, EvenMap, MadeMap, by_pixel

FLOAT32 = 2.0**-24
"""What a number loses when it is stored, of itself."""


def checked(made, polygon, slide, inside_px=1 << 22):
    """The sum of a region, once it was compared to that of all pixels."""
    found = region_sum(made, polygon, slide, inside_px)
    values = np.asarray(made.read(0, 0, 0, *made.shapes[0]), np.float64)
    shares, areas = by_pixel(made, polygon, slide)
    parts = np.nan_to_num(values) * shares
    absolute = np.abs(np.nan_to_num(values)).sum()
    height, width = made.shapes[0]
    finest = max(MPP.x * made.box.width / width, MPP.y * made.box.height / height)
    exact = math.isclose(found.at_um, finest)
    # What was read at a coarse level lost a float32 rounding there.
    slack = 1e-13 * absolute if exact else FLOAT32 * absolute
    assert found.sum == pytest.approx(parts.sum(), rel=0, abs=slack)
    if exact:
        assert found.positive == pytest.approx(parts[parts > 0].sum(), abs=slack)
        assert found.negative == pytest.approx(parts[parts < 0].sum(), abs=slack)
        covered = areas[np.isfinite(values)].sum() * MPP.x * MPP.y * 1e-6
        assert found.covered_mm2 == pytest.approx(covered, rel=1e-9, abs=1e-15)
    return found


def noise(rng, height, width):
    values = rng.normal(size=(height, width))
    values[rng.random((height, width)) < 0.2] = np.nan
    values[: height // 5, : width // 3] = np.nan
    return values


def blob(rng, centre, radius, points=24):
    angles = np.sort(rng.random(points)) * 2 * np.pi
    radii = radius * rng.uniform(0.3, 1, points)
    ring = np.c_[centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)]
    return shapely.make_valid(shapely.Polygon(ring), method="structure")


@pytest.mark.parametrize("seed", range(8))
def test_any_region(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(30, 75, 2)
    pixel = rng.uniform(0.7, 9, 2)
    made = MadeMap(noise(rng, height, width), pixel, corner=(0, 0) if seed % 2 else (13.7, 5.1))
    # The last pixels reach over the slide's edge.
    right, bottom = made.box.right - rng.random() * pixel[0], made.box.bottom - pixel[1] / 2
    slide = Box(0, 0, right, bottom)
    frame = shapely.box(0, 0, right, bottom)
    centre = rng.uniform(0.2, 0.8, 2) * (right, bottom)
    holed = blob(rng, centre, 0.6 * right).difference(blob(rng, centre, 0.2 * right))
    several = shapely.union_all([holed, blob(rng, (0, 0), right / 3), blob(rng, centre, 0.4)])
    for region in (several.intersection(frame), shapely.box(0, 0, 1e6, 1e6)):
        exact = checked(made, region, slide)
        coarse = checked(made, region, slide, inside_px=50)
        assert coarse.at_um > exact.at_um


def test_outlines_on_the_lines_between_pixels():
    rng = np.random.default_rng(3)
    made = MadeMap(noise(rng, 64, 50), (4.0, 2.0))
    slide = made.box
    stairs = shapely.Polygon([(8, 8), (8, 64), (64, 64), (64, 32), (40, 32), (40, 8)])
    touching = shapely.MultiPolygon([shapely.box(100, 20, 120, 40), shapely.box(120, 40, 160, 88)])
    odd = shapely.box(12, 6, 180, 90)  # on lines of the finest level alone
    for region in (stairs, touching, odd, shapely.box(0, 0, 200, 128), shapely.box(4, 2, 8, 4)):
        for inside_px in (1 << 22, 10):
            checked(made, region, slide, inside_px)


def test_a_region_smaller_than_a_pixel():
    made = MadeMap(np.full((40, 40), 3.0), (8.0, 8.0))
    found = checked(made, shapely.box(81, 81, 83, 82), made.box)
    assert found.positive == pytest.approx(3.0 * 2 / 64)
    assert found.negative == 0


def test_a_pixel_that_is_inside_but_for_a_hair_counts_once():
    """Coarse pixels were once taken whole, and what is cut in them counted again."""
    made = MadeMap(np.ones((64, 64)))
    for missing in (0.5e-9, 1.5e-9, 3e-9, 5e-9):
        leg = math.sqrt(2 * missing)
        ring = [(0, leg), (leg, 0), (64, 0), (64, 64), (0, 64)]
        found = region_sum(made, shapely.Polygon(ring), made.box, inside_px=4)
        assert found.sum == pytest.approx(64 * 64, abs=1e-8)


def test_the_whole_slide_holds_the_whole_map():
    rng = np.random.default_rng(0)
    made = MadeMap(noise(rng, 61, 47), (7.3, 5.9))
    slide = Box(0, 0, made.box.right - 6.0, made.box.bottom - 0.1)
    whole = np.nansum(made.values[0], dtype=np.float64)
    for beyond in (0, 5, 1e8):
        region = shapely.box(-beyond, -beyond, slide.right + beyond, slide.bottom + beyond)
        assert region_sum(made, region, slide).sum == pytest.approx(whole, abs=1e-11)


def test_regions_that_make_up_a_slide_add_up():
    rng = np.random.default_rng(1)
    made = MadeMap(noise(rng, 90, 80), (3.1, 4.7))
    slide = Box(0, 0, made.box.right - 1, made.box.bottom - 2)
    points = shapely.multipoints(rng.random((12, 2)) * (slide.right, slide.bottom))
    frame = shapely.box(0, 0, slide.right, slide.bottom)
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=frame))
    found = [region_sum(made, cell, slide, inside_px=200) for cell in cells]
    whole = np.abs(np.nan_to_num(made.values[0].astype(np.float64))).sum()
    wanted = np.nansum(made.values[0], dtype=np.float64)
    assert math.fsum(one.sum for one in found) == pytest.approx(wanted, abs=FLOAT32 * whole)


def test_beside_the_map_there_is_nothing():
    made = MadeMap(np.ones((20, 20)), (4.0, 4.0), corner=(100, 100))
    slide = Box(0, 0, 1000, 1000)
    assert region_sum(made, shapely.box(0, 0, 90, 90), slide).sum == 0
    assert region_sum(made, shapely.box(0, 0, 100, 100), slide).sum == 0
    found = region_sum(made, shapely.box(0, 0, 104, 104), slide)
    assert found.sum == 1
    assert found.covered_mm2 == pytest.approx(16 * MPP.x * MPP.y * 1e-6)


def test_pixels_beside_the_slide_take_no_part():
    """A map may be told to reach further than the slide's last pixel, where it holds nothing."""
    values = np.full((30, 30), np.nan)
    values[:20, :20] = 1
    made = MadeMap(values)
    assert region_sum(made, shapely.box(0, 0, 99, 99), Box(0, 0, 20, 20)).sum == 400


def test_a_stored_map(tmp_path):
    rng = np.random.default_rng(5)
    values = noise(rng, 90, 140).astype(np.float32)
    box = Box(0, 0, 140 * 2.5, 90 * 2.0)
    path = write_ome_tiff(
        SlideMap(values, box, MPP, "logit"), tmp_path / "map.ome.tif", "sum", tile_px=16
    )
    stored, slide = StoredMap(path), Box(0, 0, box.right - 1, box.bottom - 1)
    assert len(stored.shapes) > 3
    region = blob(rng, (170, 90), 120).intersection(shapely.box(0, 0, slide.right, slide.bottom))
    checked(stored, region, slide)
    checked(stored, region, slide, inside_px=100)


def test_what_is_read_goes_with_the_outline_and_not_with_the_area():
    rng = np.random.default_rng(2)
    read = {}
    for side in (20_000, 40_000):
        made = EvenMap(side)
        region = shapely.Point(side / 2, side / 2).buffer(0.43 * side, quad_segs=64)
        region = region.difference(blob(rng, (side / 2, side / 2), side / 8))
        tracemalloc.start()
        found = region_sum(made, region, made.box, inside_px=100_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.sum == pytest.approx(region.area, rel=1e-9)
        assert found.negative == 0
        assert found.at_um == 0.5 * 2 ** math.ceil(math.log(region.area / 1e5, 4))
        # Some 20 arrays of the outline's pixels, and a square of the map.
        assert peak < 20 * 8 * 3 * region.length + 2**24
        read[side] = made.pixels_read
    assert read[40_000] < 2.5 * read[20_000]  # an area of 4 times, an outline of 2


def test_an_outline_that_is_too_long_is_refused():
    made = EvenMap(100_000)
    teeth = np.arange(60)
    x = np.repeat(np.concatenate([teeth, teeth[::-1] + 0.5]), 2) * 1000.0
    y = np.tile([0.0, 90_000.0, 90_000.0, 0.0], 60)
    comb = shapely.make_valid(shapely.Polygon(np.c_[x, y]), method="structure")
    with pytest.raises(AnnotationError, match=r"crosses [0-9,]+ pixels of the map, at most 2,000"):
        region_sum(made, comb, made.box)
