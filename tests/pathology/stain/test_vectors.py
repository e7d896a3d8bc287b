"""Stain vectors against tissue made of known ones, and amounts against a general solver."""

import numpy as np
import pytest
from scipy.optimize import nnls

from pathology.stain.density import density
from pathology.stain.vectors import (
    REFERENCE,
    amounts,
    angle,
    in_order,
    macenko,
    positive_amounts,
    vahadane,
)
from pathology.synthetic import SyntheticSlideSpec, render
from pathology.synthetic.stains import draw_stains

WHITE = (240.0, 240.0, 240.0)


def errors(found, truth):
    """Degrees between rows."""
    return [angle(np.stack(pair)) for pair in zip(found, truth, strict=True)]


@pytest.fixture
def densities(make_tissue):
    pixels, vectors = make_tissue()
    return density(pixels[0], WHITE), vectors


def test_vectors_of_made_up_tissue_are_found(densities):
    pixels, truth = densities
    # Where 40 % of pixels hold one stain alone, the first percentile lies among them: what remains
    # is the rounding to eight bits.
    assert max(errors(macenko(pixels, 1.0), truth)) < 1.0
    # The penalty draws vectors together, by design; without rounding it would still.
    found = vahadane(pixels, 0.01, np.random.default_rng(0))
    assert max(errors(found, truth)) < 2.0
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    assert (found >= 0).all()


def test_sparsity_draws_vectors_together(densities):
    pixels, _ = densities
    apart = [angle(vahadane(pixels, s, np.random.default_rng(0))) for s in (0.005, 0.02, 0.1)]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] - apart[-1] > 1


@pytest.mark.parametrize("seed", [1, 2])
def test_vectors_of_a_made_up_slide_are_found(seed):
    """Cells, blur, sensor noise and a glass that is not 240: nearer than two slides are."""
    spec = SyntheticSlideSpec(seed, (512, 512))
    # The first thing a slide's generator draws is its stains.
    stains = draw_stains(np.random.default_rng([seed, 40]))
    truth = np.array([stains.haematoxylin, stains.eosin])
    pixels = density(render(spec, 0, 0, 512, 512).rgb.reshape(-1, 3), WHITE)
    pixels = pixels[pixels.mean(1) > 0.1]
    # No pixel is haematoxylin alone: nuclei lie among eosin.
    assert max(errors(macenko(pixels, 1.0), truth)) < 3.5
    assert max(errors(vahadane(pixels, 0.01, np.random.default_rng(0)), truth)) < 5.0


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_haematoxylin_comes_first_however_much_there_is_of_it(make_tissue, rng, method):
    """Also for stains that are bluer, redder, or nearer to each other than the reference's."""
    pairs = [
        ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
        ((0.49, 0.77, 0.41), (0.05, 0.84, 0.54)),
        ((0.73, 0.60, 0.32), (0.39, 0.81, 0.43)),
        ((0.61, 0.74, 0.28), (0.45, 0.85, 0.28)),
    ]
    for stains in pairs:
        for dilute in ((1, 0.4), (0.4, 1)):
            vectors = np.array(stains) / np.linalg.norm(stains, axis=1, keepdims=True)
            held = rng.gamma(6, 0.08, (20_000, 2)) * dilute
            held[:8000, 1], held[12_000:, 0] = 0, 0
            pixels = held @ vectors
            found = (
                macenko(pixels, 1.0)
                if method == "macenko"
                else vahadane(pixels, 0.005, np.random.default_rng(0))
            )
            assert max(errors(found, vectors)) < 4, (stains, dilute)


def test_order_does_not_depend_on_the_order_given():
    np.testing.assert_array_equal(in_order(REFERENCE), REFERENCE)
    np.testing.assert_array_equal(in_order(REFERENCE[::-1]), REFERENCE)


def test_vahadane_is_the_same_each_time_and_from_a_part(make_tissue):
    pixels, _ = make_tissue(noise=2.0)
    pixels = density(pixels[0], WHITE)
    one, again = (vahadane(pixels, 0.01, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    other = vahadane(pixels, 0.01, np.random.default_rng(4))  # another third of the pixels
    assert max(errors(one, other)) < 0.5


def test_amounts_are_those_of_a_general_solver(rng):
    vectors = REFERENCE / np.linalg.norm(REFERENCE, axis=1, keepdims=True)
    pixels = rng.normal(0.2, 0.4, (500, 3))
    expected = np.array([nnls(vectors.T, pixel)[0] for pixel in pixels])
    assert (expected == 0).any(0).all()
    np.testing.assert_allclose(positive_amounts(pixels, vectors), expected, atol=1e-12)
    solved = np.linalg.lstsq(vectors.T, pixels.T, rcond=None)[0].T
    np.testing.assert_allclose(amounts(pixels, vectors), solved, atol=1e-12)


def test_sparse_amounts_are_the_least_of_what_they_minimise(rng):
    vectors = REFERENCE / np.linalg.norm(REFERENCE, axis=1, keepdims=True)
    pixels = rng.normal(0.2, 0.3, (200, 3))

    def loss(held):
        return 0.5 * ((pixels - held @ vectors) ** 2).sum(1) + 0.05 * held.sum(1)

    best = positive_amounts(pixels, vectors, 0.05)
    for _ in range(50):
        other = (best + rng.normal(0, 0.02, best.shape)).clip(0)
        assert (loss(best) <= loss(other) + 1e-12).all()


def test_density_is_that_of_beer_and_lambert():
    pixels = np.array([[0, 1, 24], [240, 250, 120]], np.uint8)
    expected = [[np.log10(240), np.log10(240), 1.0], [0.0, 0.0, np.log10(2)]]
    np.testing.assert_allclose(density(pixels, WHITE), expected, atol=1e-12)
