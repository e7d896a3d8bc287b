"""The masks of artefacts: found where painted, and not where tissue only looks like it."""

import numpy as np
import pytest
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tissue import ARTEFACTS, survey
from pathology.tissue.artefacts import artefact_named
from pathology.tissue.picture import take_picture
from scripts.tissue_quality import cases, measure, taken_from_clean

# Least recall and precision: what scripts/tissue_quality.py measured on four slides, less a margin.
BOUNDS = {
    "green pen": (0.98, 0.84),
    "blue pen": (0.95, 0.85),
    "red pen": (0.9, 0.85),
    "black pen": (0.98, 0.85),
    "green pen, half as strong": (0.95, 0.82),
    "blue pen, half as strong": (0.15, 0.75),
    "red pen, half as strong": (0.15, 0.78),
    "black pen, half as strong": (0.35, 0.83),
    "fold of 3 layers, 80 um": (0.82, 0.78),
    "fold of 2 layers, 80 um": (0.65, 0.9),
    "fold of 3 layers, 40 um": (0.88, 0.58),
    "blur of 1.5 um": (0.92, 0.98),
    "blur of 2 um": (0.92, 0.98),
    "blur of 4 um": (0.92, 0.98),
    "blur of 8 um": (0.9, 0.98),
    "coverslip's edge": (0.97, 0.9),
    "coverslip's edge, faint": (0.95, 0.95),
    "rim of a bubble": (0.95, 0.9),
    "black fill": (0.99, 0.96),
}
SIDE = 200
TISSUE = np.array([0.30, 0.60, 0.40])


@pytest.mark.parametrize("name", BOUNDS)
def test_what_was_painted_is_found(name: str) -> None:
    recall, precision = measure(name, seed=4)
    assert recall >= BOUNDS[name][0]
    assert precision >= BOUNDS[name][1]


def test_every_painted_case_has_bounds_and_every_mask_a_case() -> None:
    assert list(cases()) == list(BOUNDS)
    assert {artefact for artefact, _ in cases().values()} == set(ARTEFACTS)


def test_next_to_nothing_is_taken_from_a_clean_slide() -> None:
    for name, share in taken_from_clean(4).items():
        assert share < 0.005, name


def disk(y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def section(density: np.ndarray = TISSUE, where: np.ndarray | None = None) -> np.ndarray:
    """A round piece of tissue on glass, with a part of it of another density; 8 um."""
    rng = np.random.default_rng(3)
    texture = 1 + 0.25 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.0)[..., None]
    optical = np.where(disk(100, 100, 80)[..., None], TISSUE, 0.0)
    if where is not None:
        optical = np.where(where[..., None], density, optical)
    light = 242 * np.exp(-optical * texture) + rng.normal(0, 1, (SIDE, SIDE, 3))
    return light.round().clip(0, 255).astype(np.uint8)


def taken(array: np.ndarray, name: str) -> np.ndarray:
    return survey(MemorySlide(array, 8.0), exclude=[name]).artefacts[name].values > 0


@pytest.mark.parametrize(
    "density",
    [
        (1.2, 1.3, 0.55),  # lymphocytes, dense haematoxylin
        (1.25, 1.12, 0.55),  # bluer than on the bluest slide measured
        (0.15, 1.0, 0.5),  # eosin
        (0.30, 1.5, 1.3),  # blood
        (1.0, 1.5, 1.9),  # melanin, DAB
        (1.5, 1.9, 1.2),  # keratin
    ],
)
def test_stains_blood_and_pigment_are_no_ink(density: tuple[float, ...]) -> None:
    assert not taken(section(np.array(density), disk(100, 100, 40)), "pen").any()


def test_ink_on_glass_is_found_and_a_speck_is_not() -> None:
    ink = np.array([1.7, 0.55, 0.95])
    assert taken(section(ink, disk(180, 20, 14)), "pen")[disk(180, 20, 13)].all()
    assert not taken(section(ink, disk(180, 20, 7)), "pen").any()


def band(half: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (np.abs(rows - columns) <= half) & disk(100, 100, 70)


def test_a_band_denser_in_every_colour_is_a_fold() -> None:
    fold = taken(section(2.2 * TISSUE, band(5)), "fold")
    assert fold[band(4)].mean() > 0.95
    assert fold[~band(9)].mean() < 0.001


@pytest.mark.parametrize(
    ("factor", "where"),
    [
        ((2.5, 1.6, 1.0), band(5)),  # a row of nuclei
        ((0.6, 1.8, 1.9), band(5)),  # muscle
        ((2.2, 2.2, 2.2), disk(100, 100, 16)),  # round
        ((2.2, 2.2, 2.2), band(25)),  # too wide
    ],
)
def test_what_is_denser_in_some_colours_or_no_band_is_no_fold(
    factor: tuple[float, ...], where: np.ndarray
) -> None:
    assert not taken(section(TISSUE * np.array(factor), where), "fold").any()


@pytest.mark.parametrize("density", [(1.0, 1.5, 1.9), (2.0, 2.2, 1.2)])  # DAB, lymphocytes
@pytest.mark.parametrize("radius", [35, 45, 55])
def test_the_rim_of_a_large_dense_area_is_no_fold(density: tuple[float, ...], radius: int) -> None:
    dense = disk(100, 100, radius) & (np.mgrid[:SIDE, :SIDE][1] > 75)
    assert not taken(section(np.array(density), dense), "fold").any()


def test_a_slide_too_coarse_for_blur_is_not_judged() -> None:
    looked = survey(MemorySlide(section(), 8.0), exclude=["blur"])
    assert np.isnan(looked.artefacts["blur"].values).all()
    assert np.isnan(looked.shares()["blur"])
    assert looked.tissue.values.sum() == looked.found.values.sum()


@pytest.mark.parametrize("shape", ["corner", "rectangle", "blob"])
def test_black_fill_touches_the_edge_or_is_a_rectangle(shape: str) -> None:
    where = {
        "corner": disk(0, 0, 40),
        "rectangle": np.pad(np.ones((40, 60), bool), ((20, 140), (10, 130))),
        "blob": disk(100, 100, 25),
    }[shape]
    array = section()
    array[where] = 3
    mask = taken(array, "black")
    if shape == "blob":
        assert not mask.any()
    else:
        assert mask[where].all()
        assert not mask[~ndimage.binary_dilation(where, iterations=5)].any()


def test_a_shadow_at_the_margin_is_an_edge_and_one_inside_is_not() -> None:
    ramp = np.clip(0.5 - np.arange(SIDE) / 60, 0, 1)
    at_margin = (section() * np.exp(-ramp)[None, :, None]).astype(np.uint8)
    assert taken(at_margin, "edge")[:, :10].mean() > 0.95
    blob = ndimage.gaussian_filter(disk(25, 175, 12).astype(float), 6)[..., None]
    assert not taken((section() * np.exp(-0.6 * blob)).astype(np.uint8), "edge").any()


def test_a_line_that_ends_at_tissue_goes_on_behind_it() -> None:
    array = section().astype(float)
    big = np.full((420, SIDE, 3), 242.0) + np.random.default_rng(0).normal(0, 1, (420, SIDE, 3))
    big[110:310] = array
    big[:, 95:98] *= np.exp(-0.5)
    mask = taken(big.astype(np.uint8), "edge")
    assert mask[:, 96].all()
    assert mask[:, :88].sum() == 0


@pytest.mark.parametrize("name", ARTEFACTS)
def test_nothing_is_taken_where_nothing_is(name: str) -> None:
    slide = MemorySlide(np.full((90, 70, 3), 240, np.uint8), 1.0)
    picture = take_picture(slide, 8.0)
    mask = artefact_named(name).mask(slide, picture, picture.map(np.zeros(picture.shape, bool)))
    assert isinstance(mask, SlideMap)
    assert not mask.values.any()
    assert (mask.box.x, mask.box.y) == (0, 0)
    assert mask.box.width >= 70
    assert mask.box.height >= 90


def test_refuses() -> None:
    with pytest.raises(ValueError, match="'pens'; there are pen, fold, blur, edge, black"):
        artefact_named("pens")
    for name in ARTEFACTS:
        kind = type(artefact_named(name))
        field = next(iter(kind.__dataclass_fields__))
        with pytest.raises(ValueError, match=field):
            kind(**{field: -1.0})
