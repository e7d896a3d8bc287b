"""What holds for every tissue finder, and what sets them apart."""

import numpy as np
import pytest
from scipy import ndimage

from pathology.slides import MemorySlide
from pathology.tissue import FINDERS, finder_named
from pathology.tissue import picture as pictures

SIDE = 240
STAIN = np.array([0.35, 0.75, 0.3])
every = pytest.mark.parametrize("name", FINDERS)


def glass(colour: tuple[int, int, int] = (240, 236, 238), sigma: float = 2.0) -> np.ndarray:
    return np.array(colour) + np.random.default_rng(0).normal(0, sigma, (SIDE, SIDE, 3))


def disk(y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def stained(
    array: np.ndarray, where: np.ndarray, strength: float, stain: np.ndarray = STAIN
) -> np.ndarray:
    texture = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(SIDE, SIDE)), 1.2)
    density = strength * (1 + 0.5 * texture / texture.std()).clip(0.05)[..., None] * stain
    return np.where(where[..., None], array * np.exp(-density), array)


def found(array: np.ndarray, name: str) -> np.ndarray:
    slide = MemorySlide(array.clip(0, 255).astype(np.uint8), 8.0)
    return finder_named(name).find(slide).values > 0


@every
@pytest.mark.parametrize("sigma", [0, 2, 4])
@pytest.mark.parametrize("colour", [(240, 236, 238), (255, 255, 255), (236, 219, 235), (0, 0, 0)])
def test_a_blank_slide_has_none(name: str, sigma: float, colour: tuple[int, int, int]) -> None:
    assert not found(glass(colour, sigma), name).any()


@every
@pytest.mark.parametrize("colour", [(240, 236, 238), (236, 219, 235)])
def test_dark_and_pale_tissue_are_both_found(name: str, colour: tuple[int, int, int]) -> None:
    dark, pale = disk(65, 65, 45), disk(165, 150, 50)
    mask = found(stained(stained(glass(colour), dark, 1.0), pale, 0.25), name)
    assert mask[dark].mean() > 0.98
    assert mask[pale].mean() > 0.9
    assert mask[~ndimage.binary_dilation(dark | pale, iterations=4)].mean() < 0.002


@every
@pytest.mark.parametrize("level", [0, 128, 255])
def test_what_a_scanner_filled_is_not_tissue(name: str, level: int) -> None:
    array = stained(glass(), disk(65, 65, 45), 1.0)
    array[150:] = level
    mask = found(array, name)
    assert mask[disk(65, 65, 45)].mean() > 0.98
    assert not mask[154:].any()


@every
def test_smooth_dense_tissue_is_filled(name: str) -> None:
    array = np.where(disk(120, 120, 80)[..., None], glass(sigma=0.5) * np.exp(-STAIN), glass())
    assert found(array, name)[disk(120, 120, 76)].mean() > 0.99


def test_grey_tissue_is_found_by_density_and_dust_is_refused_by_the_others() -> None:
    array = stained(glass(), disk(65, 65, 45), 1.0)
    array = stained(array, disk(170, 170, 40), 0.6, np.full(3, 0.6))
    grey = disk(170, 170, 36)
    assert found(array, "density")[grey].mean() > 0.98
    assert found(array, "colour")[grey].mean() < 0.02
    assert found(array, "combined")[grey].mean() < 0.02


def test_combined_grows_into_pale_tissue_beside_tissue() -> None:
    # Colour of some 10 levels; on its own not sure enough.
    pale = disk(120, 150, 60) & ~disk(120, 60, 50)
    array = stained(stained(glass(sigma=1.0), pale, 0.1), disk(120, 60, 50), 1.0)
    assert found(array, "combined")[pale].mean() > found(array, "colour")[pale].mean() + 0.5


@every
def test_bands_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = stained(glass(), disk(120, 120, 80), 0.5)
    whole = found(array, name)
    monkeypatch.setattr(pictures, "BAND_PX", 17 * SIDE)
    np.testing.assert_array_equal(found(array, name), whole)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'color'; there are colour, density, combined"):
        finder_named("color")
