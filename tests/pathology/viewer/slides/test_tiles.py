"""Tiles of square pixels: where they lie, what they hold, and who keeps them."""

import io
import math

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathology.geometry import Box, Mpp
from pathology.slides import open_slide
from pathology.slides.memory import MemorySlide
from pathology.viewer.library.library import UnknownIdError
from pathology.viewer.slides.tiles import (
    EncodedTiles,
    SlidePyramid,
    region_jpeg,
    tile_jpeg,
)

JPEG_LEVELS = 6  # grey levels that quality 90 moves a smooth picture by


def decoded(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(int)


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows along x and green along y, from 0 to 255 over the whole slide."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def whole(slide, level: int) -> np.ndarray:
    """A level put together from its tiles."""
    pyramid = SlidePyramid.of(slide)
    width, height = pyramid.size(level)
    rows = [
        np.concatenate(
            [decoded(tile_jpeg(slide, level, x, y)) for x in range(math.ceil(width / 256))], axis=1
        )
        for y in range(math.ceil(height / 256))
    ]
    found = np.concatenate(rows)
    assert found.shape == (height, width, 3)
    return found


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.5, 0.41), (0.25, 1.0)])
def test_levels_lie_where_they_should_in_micrometres(mpp):
    size = (1003, 771)
    slide = MemorySlide(ramp(*size), mpp=mpp)
    pyramid = SlidePyramid.of(slide)
    width_um, height_um = pyramid.size_um
    assert (width_um, height_um) == (size[0] * mpp[0], size[1] * mpp[1])
    for level in range(pyramid.levels):
        pixel = min(mpp) * 2**level
        assert pyramid.pixel_um(level) == pixel
        found = whole(slide, level)
        # By hand: the colour at the middle of each pixel, from its place in micrometres.
        x = (np.arange(found.shape[1]) + 0.5) * pixel / width_um
        y = (np.arange(found.shape[0]) + 0.5) * pixel / height_um
        # The outermost pixels may reach over the edge, and mix with the background there; JPEG
        # carries that into the block of 16 px around them.
        inner = np.s_[:-16, :-16]
        # A pixel of the level moves the ramp by that much; half of it may be rounding.
        step = 255 * pixel / min(width_um, height_um)
        assert np.abs(found[..., 0] - 255 * x[None])[inner].max() <= JPEG_LEVELS + step
        assert np.abs(found[..., 1] - 255 * y[:, None])[inner].max() <= JPEG_LEVELS + step


def test_the_coarsest_is_one_tile():
    for size, levels in [((256, 256), 1), ((257, 1), 2), ((1, 1), 1), ((100_000, 60_000), 10)]:
        pyramid = SlidePyramid(*size, Mpp(0.5, 0.5))
        assert pyramid.levels == levels
        assert max(pyramid.size(pyramid.levels - 1)) <= 256
        assert levels == 1 or max(pyramid.size(levels - 2)) > 256


def test_whole_sides_stay_whole():
    for mpp in (0.1, 0.2425, 0.2527, 0.499, 1 / 3):
        assert SlidePyramid(2048, 1024, Mpp(mpp, mpp)).size(3) == (256, 128)


def test_tiles_at_the_edge_are_cut():
    pyramid = SlidePyramid(600, 300, Mpp(0.5, 0.5))
    box, width, height = pyramid.tile(0, 2, 1)
    assert (width, height) == (88, 44)
    assert box == Box(512, 256, 88, 44)
    _, width, height = pyramid.tile(1, 1, 0)
    assert (width, height) == (300 - 256, 150)


@pytest.mark.parametrize("tile", [(-1, 0, 0), (9, 0, 0), (0, -1, 0), (0, 3, 0), (0, 0, 2)])
def test_no_such_tile(tile):
    with pytest.raises(UnknownIdError, match=r"no level|no tile"):
        SlidePyramid(600, 300, Mpp(0.5, 0.5)).tile(*tile)


def test_planes_of_other_factors(tmp_path):
    """Stored planes at 1, 3 and 10: tiles at 2, 4 and 8 are made of the finer ones."""
    width, height = 1500, 900
    fine = ramp(width, height)
    with tifffile.TiffWriter(tmp_path / "odd.tif") as file:
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib"}
        for factor in (1, 3, 10):
            blocks = fine.reshape(height // factor, factor, width // factor, factor, 3)
            plane = blocks.mean((1, 3)).round().astype(np.uint8)
            file.write(plane, subfiletype=int(factor > 1), **options)
    with open_slide(tmp_path / "odd.tif", 0.5) as slide:
        assert [round(level.downsample) for level in slide.levels] == [1, 3, 10]
        for level in range(SlidePyramid.of(slide).levels):
            found = whole(slide, level)
            x = (np.arange(found.shape[1]) + 0.5) * 2**level / width
            assert np.abs(found[:-16, :-16, 0] - 255 * x[None, :-16]).max() <= JPEG_LEVELS + 3


def test_a_stored_tile_is_sent_as_it_is(tmp_path, rng):
    pixels = rng.integers(0, 255, (64, 64, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    options = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 95}}
    tifffile.imwrite(tmp_path / "stored.tif", pixels, tile=(256, 256), **options)
    with open_slide(tmp_path / "stored.tif", 0.5) as slide:
        encoded = slide.encoded(Box(256, 0, 256, 256), 0.5)
        assert encoded is not None
        assert tile_jpeg(slide, 0, 1, 0) == encoded
        shown = decoded(encoded)
        assert np.array_equal(shown, slide.read(Box(256, 0, 256, 256), 0.5))
    with open_slide(tmp_path / "stored.tif", (0.5, 0.25)) as slide:  # of other pixels: made anew
        assert decoded(tile_jpeg(slide, 0, 0, 0)).shape == (256, 256, 3)
        assert decoded(tile_jpeg(slide, 1, 1, 0)).shape == (256, 256, 3)


def test_regions_have_square_pixels():
    slide = MemorySlide(ramp(400, 300), mpp=(0.5, 1.0))
    assert decoded(region_jpeg(slide, Box(0, 0, 100, 100), 64)).shape == (64, 32, 3)
    assert decoded(region_jpeg(slide, Box(0, 0, 200, 50), 64)).shape == (32, 64, 3)
    assert decoded(region_jpeg(slide, Box(10, 10, 0.5, 0.01), 9)).shape == (1, 9, 3)
    red = decoded(region_jpeg(slide, Box(100, 100, 200, 100), 100))[..., 0]
    assert abs(red.mean() - 255 / 2) <= JPEG_LEVELS


# --- what is kept


def test_encoded_tiles_are_bounded():
    tiles = EncodedTiles(100)
    for key in "abc":
        tiles.put(key, b"x" * 40)
    assert tiles.bytes == 80
    assert tiles.get("a") is None
    assert tiles.get("b") == b"x" * 40
    tiles.put("d", b"y" * 40)  # c was used less lately than b
    assert tiles.get("c") is None
    assert tiles.get("b") is not None
    tiles.put("b", b"other")
    assert tiles.get("b") == b"x" * 40
    tiles.put("large", b"z" * 101)
    assert tiles.get("large") is None
    assert tiles.bytes == 80
