"""Heatmaps lie where the tissue is: known dots through reading, tiling, stitching and each file."""

from dataclasses import replace

import geopandas
import numpy as np
import pytest

from pathology.explain.results.tile_features import write_tile_features
from scripts.placement import (
    CASES,
    Case,
    Dots,
    Placed,
    Row,
    explained,
    make_slide,
    placed_dots,
    read_table,
    rows,
)

BY_NAME = {case.name: case for case in CASES}
SMALLER = [
    replace(BY_NAME[name], size=size, **options)
    for name, size, options in (
        ("40x to 20x", (1511, 1203), {}),
        ("pixels not square, overlap", (1211, 903), {"out_mpp": 4.37}),
        ("reduced levels", (1511, 1203), {"halvings": 1}),
        ("80x to 10x, planes fitted", (2503, 2151), {}),
        ("plane of 3.99 by OpenSlide", (2001, 1503), {}),
        ("synthetic slide", (2041, 1531), {}),
        ("bounds", (1603, 1407), {"bounds": (301.0, 233.0, 1100.0, 1000.0)}),
        ("over every edge, overlap", (1211, 903), {}),
    )
]
ROUNDED = 0.5
"""Level-0 pixels by which QuPath's script, which has to name whole ones, may be off."""


def check(case: Case, row: Row) -> None:
    assert row.error_px < 0.5, row
    # Eight bits, and a filter a pixel of a tile wide, move a dot by hundredths of such a pixel.
    tile_pixel = case.tile_mpp / min(case.mpp)
    allowed = 0.05 * tile_pixel + (ROUNDED if "groovy" in row.file else 0)
    assert row.wide_level0 < allowed, row


@pytest.mark.parametrize("case", SMALLER, ids=lambda case: case.name)
def test_dots_are_where_they_are(case, tmp_path):
    found = list(rows(case, tmp_path))
    files = {row.file for row in found}
    for level in range(case.halvings + 1):
        for name in ("heatmap.ome.tif", "density.ome.tif", "heatmap.ome.zarr"):
            assert f"{name}, level {level}" in files
    assert {"heatmap", "density", "heatmap.groovy"} < files
    for row in found:
        check(case, row)


def test_tiles_for_qupath_lie_on_the_slide_cropped_to_its_bounds(tmp_path):
    (case,) = (case for case in SMALLER if case.name == "bounds")
    dots = placed_dots(case, np.random.default_rng(0))
    with make_slide(case, dots, tmp_path) as slide:
        tiles = explained(case, slide, tmp_path / "scratch").tiles
        path = tmp_path / "tiles.geojson.gz"
        write_tile_features(
            tiles, path, slide_id="s", target="dark", bounds=slide.bounds, metadata={}
        )
    found = geopandas.read_file(f"/vsigzip/{path}").geometry.bounds.to_numpy()
    corners = tiles[["x", "y"]].to_numpy() - case.bounds[:2]
    wanted = np.hstack([corners, corners + tiles[["width", "height"]].to_numpy()])
    # Written to a thousandth of a level-0 pixel.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


def test_the_table_is_of_these_cases_and_nothing_drifts():
    table = read_table()
    assert list(dict.fromkeys(row.case for row in table)) == [case.name for case in CASES]
    for row in table:
        check(BY_NAME[row.case], row)
        # Whole pixels at either end stretch a map by at most one.
        length = min(BY_NAME[row.case].size)
        assert row.drift < (2 * ROUNDED / length if "groovy" in row.file else 1e-5), row


@pytest.mark.parametrize("case", [BY_NAME["80x to 10x"], BY_NAME["pixels not square"]])
def test_the_dots_themselves_are_true(case):
    """On level 0, and on a plane of another scale along each axis, to a hundredth of a pixel."""
    dots = placed_dots(replace(case, size=(1500, 1200)), np.random.default_rng(1))
    for scale in ((1.0, 1.0), (3.9907, 4.0133)):
        size = int(1500 / scale[0]), int(1200 / scale[1])
        dark = 255.0 - dots.plane(*size, scale)[..., 0]
        off = Placed(dark, 0.0, 0.0, scale).centres(dots) - np.stack([dots.x, dots.y], 1)
        wide = np.abs(off[dots.wide]).max()
        assert wide < 0.01 * max(scale)
        if scale == (1.0, 1.0):
            assert np.abs(off).max() < 0.01


def test_a_map_that_is_off_is_told():
    dots = Dots(np.array([40.0]), np.array([30.0]), np.zeros((1, 2)), np.array([1.5]))
    dark = 255.0 - dots.plane(80, 60, (1.0, 1.0))[..., 0]
    moved = Placed(dark, 0.5, -0.25, (1.0, 1.0)).centres(dots)
    assert moved[0] == pytest.approx((40.5, 29.75), abs=0.01)
