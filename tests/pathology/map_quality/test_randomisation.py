"""Sanity checks: entropy by hand and by Quantus, similarity with and without the sign."""

import numpy as np
import pytest

from pathology.map_quality.randomisation import entropy_rise, map_entropy, parameter_similarity


def test_entropy_by_hand():
    # Bins of four values over four bins: one each; two and two; all but one.
    maps = np.array([[[0, 1], [2, 3]], [[0, 0], [5, 5]], [[0, 0], [0, 9]]], float)
    found = map_entropy(maps, bins=4)
    np.testing.assert_allclose(
        found, [np.log(4), np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)]
    )
    np.testing.assert_array_equal(map_entropy(np.full((2, 3, 3), 0.7)), 0)


def test_entropy_is_that_of_quantus(rng):
    functions = pytest.importorskip("quantus.functions.complexity_func", exc_type=ImportError)
    maps = rng.normal(size=(3, 12, 12)) ** 3
    theirs = [functions.discrete_entropy(one, one, n_bins=100) for one in maps]
    np.testing.assert_allclose(map_entropy(maps), theirs, rtol=1e-12)


def test_entropy_does_not_depend_on_scale_even_of_tiny_float32(rng):
    maps = rng.normal(size=(1, 16, 16)).astype(np.float32)
    tiny = (np.float32(1) + np.float32(1e-6) * maps).astype(np.float32)
    assert map_entropy(1000 * maps) == pytest.approx(map_entropy(maps), rel=1e-3)
    assert map_entropy(tiny) > 1


def test_entropy_rises_as_maps_become_noise(rng):
    maps = np.zeros((3, 16, 16))
    maps[:2, 4:6, 4:6] = 1 + rng.random((2, 2, 2))
    noise = rng.normal(size=maps.shape)
    rise = entropy_rise(maps, noise)
    before, after = map_entropy(maps), map_entropy(noise)
    np.testing.assert_allclose(rise[:2], after[:2] / before[:2] - 1)
    assert (rise[:2] > 1).all()
    assert np.isnan(rise[2])
    np.testing.assert_array_equal(entropy_rise(maps, maps), [0, 0, np.nan])
    with pytest.raises(ValueError, match="twice"):
        entropy_rise(maps, maps[:1])


def test_similarity_with_and_without_the_sign(rng):
    maps = rng.normal(size=(2, 5, 5))
    np.testing.assert_allclose(parameter_similarity(maps, -maps), [-1, -1])
    np.testing.assert_allclose(parameter_similarity(maps, -maps, keep_sign=False), [1, 1])
