"""A slide as a small picture, and maps looked up on another grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tissue import picture as pictures
from pathology.tissue.picture import on_grid, take_picture

RNG = np.random.default_rng(0)


def test_a_picture_is_what_reading_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    array = RNG.integers(0, 256, (333, 250, 3), np.uint8)
    slide = MemorySlide(array, (1.0, 2.0), bounds=Box(7, 9, 230, 300))
    monkeypatch.setattr(pictures, "BAND_PX", 500)
    picture = take_picture(slide, 8.0)
    assert picture.shape == (75, 29)
    assert picture.box == Box(7, 9, 232, 300)
    expected = slide.read(picture.box, 8.0).astype(int)
    # The reader may resample a band from blocks that begin elsewhere: rounding differs.
    assert np.abs(picture.pixels - expected).max() <= 1


def test_measures_are_of_glass_zero() -> None:
    picture = take_picture(MemorySlide(np.full((80, 80, 3), (230, 220, 240), np.uint8), 8.0), 8.0)
    np.testing.assert_array_equal(picture.glass, (230, 220, 240))
    assert not picture.colour.any()
    assert not picture.texture.any()
    assert not picture.absorbance.any()


def test_absorbance_is_the_mean_density_in_hundredths() -> None:
    array = np.full((80, 80, 3), 240, np.uint8)
    array[:, 60:] = np.rint(240 * np.exp([-0.2, -0.8, -0.5]))
    picture = take_picture(MemorySlide(array, 8.0), 8.0)
    assert (picture.absorbance[:, 66:] == 50).all()
    assert (picture.colour[:, 66:] == round(255 * (np.exp(-0.2) - np.exp(-0.8)))).all()


sides = st.integers(1, 9)
lengths = st.floats(2.0, 40.0)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, lengths, lengths, st.floats(-15, 15), st.floats(-15, 15))
def test_means_on_another_grid_are_exact(
    height: int, width: int, rows: int, columns: int, wide: float, tall: float, x: float, y: float
) -> None:
    values = np.random.default_rng(1).uniform(0, 1, (height, width)).astype(np.float32)
    slide_map = SlideMap(values, Box(0, 0, 20, 30), Mpp(1, 1))
    box = Box(x, y, wide, tall)
    got = on_grid(slide_map, box, (rows, columns))
    boxes = np.array(
        [
            (x + j * wide / columns, y + i * tall / rows, wide / columns, tall / rows)
            for i in range(rows)
            for j in range(columns)
        ]
    )
    expected = slide_map.box_means(boxes).reshape(rows, columns)
    np.testing.assert_allclose(got, expected, atol=2e-5)  # float32 sums


@pytest.mark.parametrize("rows", [3, 40, 97])
def test_bands_of_another_grid_change_nothing(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    values = np.random.default_rng(1).uniform(0, 1, (40, 30)).astype(np.float32)
    values[3, 4:9] = np.nan
    slide_map = SlideMap(values, Box(5, 5, 300, 400), Mpp(1, 1))
    box = Box(-20, 90, 500, 350)
    whole = on_grid(slide_map, box, (rows, 20))
    monkeypatch.setattr(pictures, "BAND_PX", 60)
    np.testing.assert_allclose(on_grid(slide_map, box, (rows, 20)), whole, rtol=1e-6)
    assert whole.flags.c_contiguous


def test_nan_counts_as_zero_on_another_grid() -> None:
    slide_map = SlideMap(np.array([[np.nan, 1.0]]), Box(0, 0, 2, 1), Mpp(1, 1))
    assert on_grid(slide_map, Box(0, 0, 2, 1), (1, 1)) == pytest.approx(0.5)


@pytest.mark.parametrize("light", [0.75, 0.6, 0.5])
def test_glass_of_a_dim_scan_is_no_shade(light: float) -> None:
    rng = np.random.default_rng(0)
    glass = np.array([236, 240, 238])
    array = np.broadcast_to(glass, (200, 200, 3)).astype(float)
    array[50:150, 50:150] *= np.exp(-rng.uniform(0.2, 1.2, (100, 100, 1)) * (0.4, 0.8, 0.5))
    array = (light * array + rng.normal(0, 1, array.shape)).round().clip(0, 255).astype(np.uint8)
    assert take_picture(MemorySlide(array, 8.0), 8.0).glass == pytest.approx(light * glass, abs=2)


@pytest.mark.parametrize("colour", [(0.5, 0.9, 0.6), (0.9, 1.2, 0.6), (0.45, 0.62, 0.4)])
def test_a_slide_full_of_tissue_lends_no_colour_however_dense(colour: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    optical = ndimage.gaussian_filter(rng.uniform(0.2, 1.8, (200, 200, 1)), (1, 1, 0)) * colour
    array = (240 * np.exp(-optical)).round().astype(np.uint8)
    assert (take_picture(MemorySlide(array, 8.0), 8.0).glass == 255).all()


def test_fill_is_no_glass_of_a_dim_scan() -> None:
    array = np.zeros((200, 200, 3), np.uint8)
    array[:, :90] = 128  # exactly one colour: not scanned
    assert (take_picture(MemorySlide(array, 8.0), 8.0).glass == 255).all()
