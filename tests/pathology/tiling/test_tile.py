"""Grids: against loops, over awkward scales, at the edges."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathology.errors import NoTissueError
from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide, Slide
from pathology.tiling import TileSpec, tile_slide
from pathology.tissue import survey


def blank(width: int, height: int, mpp: float = 0.25, bounds: Box | None = None) -> MemorySlide:
    # One row of memory, whatever the size: pixels are not looked at here.
    array = np.broadcast_to(np.uint8(255), (height, width, 3))
    return MemorySlide(array, mpp, bounds=bounds)


def tissue_of(slide: Slide, values: np.ndarray) -> SlideMap:
    return SlideMap(values, Box(0, 0, *slide.size), slide.mpp)


def everywhere(slide: Slide) -> SlideMap:
    return tissue_of(slide, np.ones((1, 1)))


@settings(deadline=None)
@given(
    st.integers(50, 3000),
    st.integers(50, 3000),
    st.floats(0.1, 1.2),
    st.floats(0.1, 4.0),
    st.integers(8, 300),
    st.floats(0, 0.9),
)
def test_kept_edges_cover_the_slide(
    width: int, height: int, mpp0: float, mpp: float, size_px: int, overlap: float
) -> None:
    spec = TileSpec(size_px, mpp, int(size_px * overlap), min_tissue=0, keep_edges=True)
    slide = blank(width, height, mpp0)
    if width * height * (mpp0 / mpp / spec.stride_px) ** 2 > 5_000:
        return
    grid = tile_slide(slide, spec, everywhere(slide))
    boxes = grid.boxes()
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    assert boxes[:, :2].min() == 0
    assert right.max() >= width - 1e-3
    assert bottom.max() >= height - 1e-3
    for axis in (0, 1):  # neighbours leave no gap, and share the overlap and nothing else
        starts = np.unique(boxes[:, axis])
        shared = boxes[0, 2 + axis] - np.diff(starts)
        np.testing.assert_allclose(shared, spec.overlap_px * mpp / mpp0, atol=1e-6)
    # As few as it takes: no column or row lies wholly under the one before.
    assert np.unique(boxes[:, 0])[:-1].size == 0 or np.unique(right)[-2] < width
    assert np.unique(boxes[:, 1])[:-1].size == 0 or np.unique(bottom)[-2] < height


@settings(deadline=None)
@given(st.integers(300, 2000), st.integers(300, 2000), st.floats(0.2, 0.3), st.data())
def test_tiles_that_fit_do_not_overlap(
    width: int, height: int, mpp0: float, data: st.DataObject
) -> None:
    size_px = data.draw(st.integers(20, 100))
    spec = TileSpec(size_px, 0.5, min_tissue=0)
    slide = blank(width, height, mpp0)
    boxes = tile_slide(slide, spec, everywhere(slide)).boxes()
    assert (boxes[:, 0] + boxes[:, 2]).max() <= width + 1e-3
    assert (boxes[:, 1] + boxes[:, 3]).max() <= height + 1e-3
    side = size_px * 0.5 / mpp0
    assert len(boxes) == int(width / side + 1e-6) * int(height / side + 1e-6)
    assert boxes[:, 2:].prod(axis=1).sum() <= width * height + 1


def test_positions_do_not_drift() -> None:
    slide = blank(100_000, 300, 0.2528)
    spec = TileSpec(224, 0.5, min_tissue=0, keep_edges=True)
    grid = tile_slide(slide, spec, everywhere(slide))
    row = grid.x[grid.y == 0]
    np.testing.assert_array_equal(row, np.arange(len(row)) * (224 * 0.5 / 0.2528))


def test_tiles_are_sorted_by_rows_then_columns() -> None:
    slide = blank(1000, 800)
    grid = tile_slide(slide, TileSpec(100, 0.25), everywhere(slide))
    order = np.lexsort((grid.x, grid.y))
    np.testing.assert_array_equal(order, np.arange(80))


def test_grid_starts_at_the_bounds() -> None:
    slide = blank(1000, 800, bounds=Box(130, 70, 410, 300))
    grid = tile_slide(slide, TileSpec(100, 0.25), everywhere(slide))
    assert sorted(set(grid.x)) == [130, 230, 330, 430]
    assert sorted(set(grid.y)) == [70, 170, 270]


def test_sides_are_apart_where_pixels_are_not_square() -> None:
    slide = MemorySlide(np.full((400, 400, 3), 255, np.uint8), (0.25, 0.5))
    grid = tile_slide(slide, TileSpec(50, 0.5), everywhere(slide))
    assert grid.tile_size == (100, 50)
    assert len(grid) == 4 * 8


@pytest.mark.parametrize(("keep_edges", "expected"), [(False, 12), (True, 20)])
def test_edges(keep_edges: bool, expected: int) -> None:
    slide = blank(450, 350)
    spec = TileSpec(100, 0.25, keep_edges=keep_edges, min_tissue=0)
    assert len(tile_slide(slide, spec, everywhere(slide))) == expected


def test_the_tissue_fraction_is_exact_and_decides() -> None:
    slide = blank(400, 200)
    values = np.zeros((200, 400))
    values[:, :150] = 1  # first column full, second half, others empty
    grid = tile_slide(slide, TileSpec(100, 0.25, min_tissue=0.5), tissue_of(slide, values))
    assert sorted(zip(grid.x, grid.y, grid.tissue, strict=True)) == [
        (0, 0, 1),
        (0, 100, 1),
        (100, 0, 0.5),
        (100, 100, 0.5),
    ]
    grid = tile_slide(slide, TileSpec(100, 0.25, min_tissue=0.51), tissue_of(slide, values))
    assert set(grid.x) == {0}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 50))
def test_every_tile_with_tissue_is_kept_and_no_other(seed: int) -> None:
    slide = blank(320, 240)
    values = np.random.default_rng(seed).integers(0, 2, (12, 16)).astype(float)
    spec = TileSpec(40, 0.25, min_tissue=0.5)
    expected = [
        (x, y)
        for y in range(0, 240, 40)
        for x in range(0, 320, 40)
        if values[y // 20 : y // 20 + 2, x // 20 : x // 20 + 2].mean() >= 0.5
    ]
    grid = tile_slide(slide, spec, tissue_of(slide, values))
    assert list(zip(grid.x, grid.y, strict=True)) == expected


def test_the_grid_says_where_its_tissue_is_from() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    pixels[:, 200:] = 245
    slide = MemorySlide(pixels, 4.0)
    spec = TileSpec(20, 4.0, exclude=("pen",))
    grid = tile_slide(slide, spec)
    assert grid.spec == spec
    assert grid.x.max() <= 200
    same = tile_slide(slide, spec, survey(slide, "colour", ["pen"]))
    np.testing.assert_array_equal(same.boxes(), grid.boxes())
    given = tile_slide(slide, spec, everywhere(slide))
    assert given.spec == replace(spec, tissue="given", exclude=())
    assert len(given) == 400
    with pytest.raises(ValueError, match="by colour without anything, wanted colour without pen"):
        tile_slide(slide, spec, survey(slide, "colour", []))
    with pytest.raises(ValueError, match="by density without pen, wanted colour"):
        tile_slide(slide, spec, survey(slide, "density", ["pen"]))
    with pytest.raises(ValueError, match="needs a map of tissue"):
        tile_slide(slide, given.spec)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_mask_of_0_and_255_is_no_fraction(dtype: type) -> None:
    slide = blank(500, 400)
    values = np.zeros((4, 5), dtype)
    values[0, 0] = 255
    mask = SlideMap(values, Box(0, 0, 500, 400), slide.mpp)
    with pytest.raises(ValueError, match="fractions from 0 to 1, got 0 to 255"):
        tile_slide(slide, TileSpec(100, slide.mpp.x), mask)


def test_no_tissue_says_what_to_do() -> None:
    slide = blank(400, 200)
    with pytest.raises(NoTissueError, match=r"none of 8 tiles.*at most 0\.200.*lower min_tissue"):
        tile_slide(slide, TileSpec(100, 0.25), tissue_of(slide, np.full((1, 1), 0.2)))


def test_a_blank_slide_has_no_tissue() -> None:
    noise = np.random.default_rng(0).normal(240, 3, (600, 600, 3)).astype(np.uint8)
    with pytest.raises(NoTissueError):
        tile_slide(MemorySlide(noise, 2.0), TileSpec(100, 2.0))


def test_a_slide_smaller_than_a_tile() -> None:
    slide = blank(90, 200)
    with pytest.raises(NoTissueError, match=r"smaller than one tile.*keep_edges"):
        tile_slide(slide, TileSpec(100, 0.25), everywhere(slide))
    spec = TileSpec(100, 0.25, keep_edges=True)
    assert len(tile_slide(slide, spec, everywhere(slide))) == 2


def test_tiles_read_at_their_size() -> None:
    slide = MemorySlide(np.full((700, 700, 3), 100, np.uint8), 0.2528)
    grid = tile_slide(slide, TileSpec(64, 0.5), everywhere(slide))
    assert {slide.read(tile.box, 0.5).shape for tile in grid} == {(64, 64, 3)}
