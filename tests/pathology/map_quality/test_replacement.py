"""Fillings: what is kept stays, and what is put in is what each says."""

import numpy as np
import pytest

from pathology.map_quality.replacement import (
    FILLS,
    Blur,
    Colour,
    Inpainting,
    LocalMean,
    Mean,
    glass_colour,
    is_tissue,
    make_fill,
)


@pytest.fixture
def image(rng):
    return rng.uniform(0, 1, (9, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize("share", [0, 0.1, 0.7, 1])
def test_only_removed_pixels_change_and_stay_colours(name, share, image, rng):
    settings = {"other": np.roll(image, 1, axis=0)} if name == "tile" else {}
    removed = rng.random(image.shape[:2]) < share
    before = image.copy()
    filled = make_fill(name, **settings)(image, removed)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(filled[~removed], image[~removed])
    assert filled.dtype == np.float32
    assert (filled >= 0).all()
    assert (filled <= 1).all()
    if removed.any():
        assert (filled[removed] != image[removed]).any(1).all()


def test_names_and_settings_that_do_not_exist():
    with pytest.raises(ValueError, match="fill must be one of glass"):
        make_fill("telea")
    with pytest.raises(ValueError, match="fill blur"):
        make_fill("blur", colour=(1, 1, 1))
    with pytest.raises(ValueError, match="other tile"):
        make_fill("tile", other=np.zeros((2, 2, 3), np.float32))(
            np.zeros((3, 3, 3), np.float32), np.ones((3, 3), bool)
        )


def dense_inpainting(image, removed):
    """Each removed pixel's equation, one by one."""
    height, width = removed.shape
    places = {place: k for k, place in enumerate(zip(*np.nonzero(removed), strict=True))}
    system, right = np.zeros((len(places), len(places))), np.zeros((len(places), 3))
    for (y, x), k in places.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                there = (y + down, x + across)
                if (down, across) == (0, 0) or not (
                    0 <= there[0] < height and 0 <= there[1] < width
                ):
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                system[k, k] += weight
                if there in places:
                    system[k, places[there]] -= weight
                else:
                    right[k] += weight * image[there]
    filled = image.astype(np.float64)
    filled[removed] = np.linalg.solve(system, right)
    return filled


def test_inpainting_solves_the_equations(image, rng):
    for share in (0.1, 0.5, 0.9):
        removed = rng.random(image.shape[:2]) < share
        # float32 images: half a unit of the last place of numbers up to 1.
        np.testing.assert_allclose(
            Inpainting()(image, removed), dense_inpainting(image, removed), atol=1e-6
        )


def test_inpainting_is_that_of_roads_authors(image, rng):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", exc_type=ImportError)
    removed = rng.random(image.shape[:2]) < 0.6
    # Their system alone: what is around it does not run with NumPy 2.
    system, right = road.NoisyLinearImputer.setup_sparse_system(
        (~removed).astype(float), image.transpose(2, 0, 1).astype(float), road.neighbors_weights
    )
    theirs = np.linalg.solve(system.toarray(), right)
    np.testing.assert_allclose(Inpainting()(image, removed)[removed], theirs, atol=1e-6)


def test_the_local_mean_is_of_what_is_left(image):
    removed = np.zeros(image.shape[:2], bool)
    removed[3:5, 4:7] = True
    sigma = 0.1
    filled = LocalMean(sigma)(image, removed)
    rows, columns = np.indices(removed.shape)
    for y, x in zip(*np.nonzero(removed), strict=True):
        far = (rows - y) ** 2 + (columns - x) ** 2
        weight = np.exp(-far / (2 * (sigma * 9) ** 2))
        # As the filter has it: nothing beyond four sigmas on either axis.
        reach = int(4 * sigma * 9 + 0.5)
        weight[(abs(rows - y) > reach) | (abs(columns - x) > reach) | removed] = 0
        expected = (weight[..., None] * image).sum((0, 1)) / weight.sum()
        np.testing.assert_allclose(filled[y, x], expected, atol=1e-6)


def test_a_local_mean_far_from_everything_is_still_one():
    image = np.full((40, 40, 3), 0.25, np.float32)
    removed = np.ones((40, 40), bool)
    removed[0, 0] = False
    np.testing.assert_allclose(LocalMean(0.01)(image, removed), 0.25, atol=1e-6)


def test_blur_mean_and_colour(image):
    removed = np.zeros(image.shape[:2], bool)
    removed[4, 6] = True
    np.testing.assert_allclose(Mean()(image, removed)[4, 6], image.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(Colour((0.1, 0.2, 0.3))(image, removed)[4, 6], [0.1, 0.2, 0.3])
    # A blur much wider than the image is its mean.
    wide = Blur(20.0)(image, np.ones_like(removed))
    assert np.ptp(wide, axis=(0, 1)).max() < 1e-2


def test_glass_is_what_is_bright():
    image = np.full((20, 20, 3), (0.6, 0.4, 0.6), np.float32)
    image[:, :10] = (0.93, 0.92, 0.94)
    np.testing.assert_array_equal(is_tissue(image), np.arange(20) >= 10 + 0 * image[..., 0])
    np.testing.assert_allclose(glass_colour(image), (0.93, 0.92, 0.94), atol=1e-6)
    assert glass_colour(image[:, 10:]) == (240 / 255,) * 3
