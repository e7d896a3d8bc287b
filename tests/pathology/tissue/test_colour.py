"""OtsuTissue on made-up and on real slides."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pathology.geometry import Box
from pathology.slides import MemorySlide, open_slide
from pathology.tissue import OtsuTissue
from pathology.tissue import picture as pictures
from pathology.tissue.picture import take_picture

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[4] / "shared" / "data"))
GLASS = (240, 236, 238)
STAIN = np.array([0.35, 0.75, 0.3])  # optical density of H&E in red, green, blue
SIDE = 300


def noise(sigma: float = 2.0, glass: tuple[int, int, int] = GLASS) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array(glass) + rng.normal(0, sigma, (SIDE, SIDE, 3))


def disk(y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def stained(array: np.ndarray, where: np.ndarray, strength: float) -> np.ndarray:
    """Textured stain at the scale of cells."""
    texture = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(SIDE, SIDE)), 1.2)
    density = strength * (1 + 0.5 * texture / texture.std()).clip(0.05)[..., None] * STAIN
    return np.where(where[..., None], array * np.exp(-density), array)


def found(array: np.ndarray, finder: OtsuTissue | None = None) -> np.ndarray:
    slide = MemorySlide(array.clip(0, 255).astype(np.uint8), 8.0)
    return (finder or OtsuTissue()).find(slide).values > 0


@pytest.mark.parametrize("sigma", [0, 2, 5])
@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (236, 219, 235), (0, 0, 0)])
def test_a_blank_slide_has_none(sigma: float, glass: tuple[int, int, int]) -> None:
    assert not found(noise(sigma, glass)).any()


@pytest.mark.parametrize("glass", [GLASS, (236, 219, 235)])
def test_dark_and_pale_tissue_are_both_found(glass: tuple[int, int, int]) -> None:
    dark, pale = disk(80, 80, 50), disk(200, 180, 60)
    array = stained(stained(noise(glass=glass), dark, 1.0), pale, 0.2)
    mask = found(array)
    assert mask[dark].mean() > 0.98
    assert mask[pale].mean() > 0.9
    assert mask[~ndimage.binary_dilation(dark | pale, iterations=3)].mean() < 0.001


def test_grey_things_are_not_tissue() -> None:
    array = stained(noise(), disk(80, 80, 50), 1.0)
    array[200:, 200:] = 0  # a scanner's fill
    array[200:, :60] = 128
    dust = disk(60, 220, 14)
    array[dust] = 90 + np.random.default_rng(2).normal(0, 10, (dust.sum(), 1))
    mask = found(array)
    assert mask[disk(80, 80, 50)].mean() > 0.98
    assert not mask[150:].any()
    assert not mask[:, 160:].any()


def test_stain_on_the_glass_is_not_tissue() -> None:
    tissue_disk = disk(150, 120, 60)
    bleed = ndimage.gaussian_filter(disk(150, 200, 50).astype(float), 12)[..., None]
    array = stained(noise() * np.exp(-0.3 * bleed * STAIN), tissue_disk, 1.0)
    mask = found(array)
    assert mask[tissue_disk].mean() > 0.98
    assert mask[:, 190:].mean() < 0.02


def test_small_holes_are_filled_and_specks_dropped() -> None:
    body, hole, lumen, speck = (
        disk(130, 130, 90),
        disk(100, 100, 4),
        disk(160, 150, 25),
        disk(20, 270, 6),
    )
    array = stained(noise(), (body & ~hole & ~lumen) | speck, 1.0)
    mask = found(array)
    assert mask[hole].all()
    assert not mask[disk(160, 150, 20)].any()
    assert not mask[speck].any()
    everything = found(array, OtsuTissue(min_area_um2=0, max_hole_um2=0, closing_um=0))
    assert everything[speck].mean() > 0.9
    assert not everything[disk(100, 100, 2)].any()


def test_the_map_lies_on_the_bounds_in_whole_pixels() -> None:
    slide = MemorySlide(
        np.full((300, 401, 3), 255, np.uint8), (1.0, 2.0), bounds=Box(10, 20, 383, 201)
    )
    slide_map = OtsuTissue(mpp=8.0).find(slide)
    assert slide_map.values.shape == (51, 48)
    assert slide_map.box == Box(10, 20, 384, 204)
    assert slide_map.mpp == pytest.approx((8, 8))
    assert slide_map.values.dtype == np.float32


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    array = stained(noise(), disk(130, 130, 90), 0.5)
    whole = found(array)
    monkeypatch.setattr(pictures, "BAND_PX", 20 * SIDE)
    np.testing.assert_array_equal(found(array), whole)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Read at once, 4 million pixels of map would be 50 MB a copy as floats, and of those several.
    monkeypatch.setattr(pictures, "BAND_PX", 2**17)
    array = np.broadcast_to(np.uint8(240), (2048, 2048, 3))
    tracemalloc.start()
    picture = take_picture(MemorySlide(array, 8.0), 8.0)
    colour, texture = picture.colour, picture.texture
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not colour.any()
    assert not texture.any()
    assert peak < 50e6


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"mpp": 0}, "mpp"),
        ({"mpp": float("nan")}, "mpp"),
        ({"min_area_um2": -1}, "min_area_um2"),
        ({"max_hole_um2": float("inf")}, "max_hole_um2"),
        ({"closing_um": -1}, "closing_um"),
    ],
)
def test_refuses(change: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        OtsuTissue(**change)


@pytest.mark.parametrize(
    ("name", "mpp", "least", "most", "inside", "outside"),
    [
        # Checked by eye: all of the section, none of the glass.
        ("CMU-1-Small-Region.svs", None, 0.36, 0.43, (1000, 2500), (200, 200)),
        ("her2st_C2.tif", 0.69, 0.16, 0.185, (5500, 6500), (8200, 4000)),
        # Tinted glass, and stain bled onto it to the right of the section.
        ("her2st_C3.tif", 0.69, 0.16, 0.185, (4500, 3500), (7200, 4800)),
    ],
)
def test_real_slides(
    name: str,
    mpp: float | None,
    least: float,
    most: float,
    inside: tuple[int, int],
    outside: tuple[int, int],
) -> None:
    path = DATA / "slides" / name
    if not path.exists():
        pytest.skip(f"slides/{name} is not under BCOS_PATHOLOGY_DATA")
    with open_slide(path, mpp=mpp) as slide:
        slide_map = OtsuTissue().find(slide)
    assert least < slide_map.values.mean() < most
    probes = np.array([[*inside, 200, 200], [*outside, 200, 200]], float)
    np.testing.assert_allclose(slide_map.box_means(probes), [1, 0], atol=0.02)
