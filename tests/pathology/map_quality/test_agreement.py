"""Agreement of maps: SciPy's correlation, and MeGe and ReCo by hand and by a slow loop."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from pathology.map_quality.agreement import (
    distance,
    fold_agreement,
    relative_consistency,
    similarity,
    spearman,
)


def test_rank_correlation_is_scipys_with_ties(rng):
    one, other = rng.integers(0, 5, (2, 6, 7))
    assert spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel())[0])
    assert spearman(one, -one) == -1
    assert np.isnan(spearman(one, np.ones((6, 7))))
    with pytest.raises(ValueError, match="one shape"):
        spearman(one, other[:2])


def test_similarity_is_image_by_image(rng):
    maps = rng.normal(size=(3, 4, 5))
    others = maps.copy()
    others[1] *= -1
    others[2] = 0
    np.testing.assert_array_equal(similarity(maps, others), [1, -1, np.nan])
    with pytest.raises(ValueError, match="twice"):
        similarity(maps, others[:2])


def test_distances():
    np.testing.assert_allclose(distance(np.array([1, 0, -1])), [0, 0.5, 1])
    # As published the opposite is no different from the same.
    np.testing.assert_allclose(distance(np.array([1, 0, -1]), keep_sign=False), [0, 1, 0])


def test_mege_and_reco_by_hand():
    up = np.arange(4.0).reshape(2, 2)
    # Two folds, four images, each held out by one: same, opposite, unrelated, same.
    unrelated = np.array([[1.0, 3.0], [0.0, 2.0]])
    assert spearman(up, unrelated) == 0
    maps = np.array([[up, up, up, up], [up, -up, unrelated, up]])
    right = np.array([[1, 1, 1, 0], [1, 0, 1, 0]], bool)
    found = fold_agreement(maps, right, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(found.agreeing, [0, 0.5])
    np.testing.assert_allclose(found.contradicting, [1])
    assert found.mege == pytest.approx(1 / 1.25)
    assert found.reco == 1
    unsigned = fold_agreement(maps, right, np.array([0, 1, 0, 1]), keep_sign=False)
    # The flipped map passes as the same: the one pair that contradicts is the nearest of all.
    assert unsigned.contradicting == pytest.approx(0)
    assert unsigned.reco == 0


def test_only_images_that_one_of_two_did_not_see(rng):
    maps = rng.normal(size=(3, 6, 4, 4))
    held_out = np.array([0, 0, 1, 1, 2, 2])
    right = rng.random((3, 6)) < 0.6
    expected = {2: [], 1: []}
    for i in range(3):
        for j in range(i + 1, 3):
            for image in range(6):
                rights = int(right[i, image]) + int(right[j, image])
                if held_out[image] in (i, j) and rights:
                    rho = spearmanr(maps[i, image].ravel(), maps[j, image].ravel())[0]
                    expected[rights].append((1 - rho) / 2)
    found = fold_agreement(maps, right, held_out)
    np.testing.assert_allclose(found.agreeing, expected[2])
    np.testing.assert_allclose(found.contradicting, expected[1])
    best = max(
        (found.agreeing <= t).mean() + (found.contradicting > t).mean() - 1
        for t in [*found.agreeing, *found.contradicting]
    )
    assert found.reco == pytest.approx(max(best, 0))


def test_constant_maps_and_missing_cases_are_counted(rng):
    maps = np.ones((2, 3, 4, 4))
    maps[:, 0] = rng.normal(size=(4, 4))
    found = fold_agreement(maps, np.ones((2, 3), bool), np.array([0, 1, 1]))
    assert found.undefined == 2
    assert found.mege == 1
    assert np.isnan(found.reco)
    assert found.note == "no image of which one of two models is right"
    nobody = fold_agreement(maps, np.zeros((2, 3), bool), np.array([0, 1, 1]))
    assert np.isnan(nobody.mege)
    with pytest.raises(ValueError, match="two folds"):
        fold_agreement(maps[:1], np.ones((1, 3), bool), np.zeros(3, int))


def test_consistency_of_the_same_distances_is_chance():
    assert relative_consistency(np.array([0.1, 0.2]), np.array([0.1, 0.2])) == 0
    assert relative_consistency(np.array([0.1, 0.4]), np.array([0.3, 0.5])) == 0.5
