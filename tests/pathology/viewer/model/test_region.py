"""Which pixels of a tile a region takes, and the colour that they get."""

import numpy as np
import pytest

from pathology.geometry import Box, Mpp
from pathology.slides import MemorySlide
from pathology.tiling import TileSpec, tile_slide
from pathology.viewer.model.region import Region, fill_colour
from pathology.viewer.regions.regions import parse_polygons
from tests.pathology.viewer.model.made_subject import HOLE, OUTLINE, POLYGONS, is_inside

SIZE = 96, 80
REGION = Region(POLYGONS, SIZE)


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        (Box(0, 0, 80, 60), (60, 80)),
        (Box(3.4, 7.9, 41.5, 39.3), (29, 31)),  # resampled, off the slide's pixels
        (Box(40, 20, 5, 5), (16, 16)),  # wholly inside
        (Box(200, 200, 5, 5), (4, 4)),
    ],
)
def test_a_pixel_is_inside_where_its_centre_is(box, shape):
    mask = REGION.mask(box, *shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            x = box.x + (column + 0.5) * box.width / shape[1]
            y = box.y + (row + 0.5) * box.height / shape[0]
            wanted = is_inside(x, y, OUTLINE) and not is_inside(x, y, HOLE)
            assert mask[row, column] == wanted


def test_tiles_that_it_meets():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 12, 12], [40, 20, 5, 5], [32, 26, 2, 2], [70, 0, 9, 9]])
    # The second takes a corner in, the fourth lies in the hole.
    assert REGION.touched(boxes.astype(float)).tolist() == [False, True, True, False, False]


def test_an_outline_that_crosses_itself_has_an_area_and_overlaps_count_once():
    bow = (((0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)),)
    assert Region((bow,), SIZE).area_mm2(Mpp(1.0, 1.0)) == pytest.approx(50e-6)
    # A star's middle is wound around twice, and inside of what its line encloses.
    corners = [(40 + 39 * np.cos(a), 40 + 39 * np.sin(a)) for a in np.arange(5) * 0.8 * np.pi]
    star = Region((((*corners,),),), SIZE)
    assert star.mask(Box(39, 39, 2, 2), 1, 1).all()
    whole = parse_polygons([[list(map(list, corners))]], Box(-100, -100, 200, 200))
    assert star.geometry.equals(whole)
    square = (((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)),)
    assert Region((square, square), SIZE).area_mm2(Mpp(0.5, 2.0)) == pytest.approx(100e-6)


def test_colours():
    array = np.full((64, 96, 3), 250, np.uint8)
    array[8:40, 16:64] = (200, 20, 100)
    slide = MemorySlide(array, mpp=1.0, background=(240, 241, 242))
    grid = tile_slide(slide, TileSpec(16, 1.0, min_tissue=0.0))
    boxes = grid.boxes()
    on_tissue = (boxes[:, 0] >= 16) & (boxes[:, 0] < 64) & (boxes[:, 1] >= 16) & (boxes[:, 1] < 32)
    assert on_tissue.sum() == 3
    assert fill_colour("background", slide, grid) == (240, 241, 242)
    assert fill_colour("grey", slide, grid) == (128, 128, 128)
    assert fill_colour("mean", slide, grid.select(on_tissue)) == (200, 20, 100)
    half = grid.select(on_tissue | ((boxes[:, 1] >= 48) & (boxes[:, 0] < 48)))
    assert fill_colour("mean", slide, half) == (225, 135, 175)


def test_the_mean_of_tiles_smaller_than_the_views_pixels_is_of_where_they_lie():
    array = np.full((4, 4096, 3), 250, np.uint8)
    array[:, 2048:] = (10, 20, 30)
    slide = MemorySlide(array, mpp=1.0)
    grid = tile_slide(slide, TileSpec(1, 1.0, min_tissue=0.0))
    few = grid.select(np.flatnonzero(grid.x == 3001))
    assert fill_colour("mean", slide, few) == (10, 20, 30)
