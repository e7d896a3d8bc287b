"""Measures of ranking, by hand, over all orders of ties, and against scikit-learn and Quantus."""

from itertools import permutations

import numpy as np
import pytest

from pathology.map_quality.ranking import (
    auroc,
    average_precision,
    pointing_game,
    relevance_rank_accuracy,
)

ALL = (average_precision, auroc, relevance_rank_accuracy, pointing_game)


def ties(rng, images=6, side=5):
    """Maps of few values, and masks."""
    masks = rng.random((images, side, side)) < 0.3
    masks[:, 0, 0], masks[:, 0, 1] = True, False
    return rng.integers(-2, 3, masks.shape).astype(float), masks


def test_by_hand():
    maps = [[[4.0, 3.0], [2.0, 1.0]]]
    masks = np.array([[[True, False], [True, False]]])
    assert average_precision(maps, masks) == pytest.approx([(1 + 2 / 3) / 2])
    assert auroc(maps, masks) == pytest.approx([3 / 4])
    assert relevance_rank_accuracy(maps, masks) == pytest.approx([1 / 2])
    assert pointing_game(maps, masks) == pytest.approx([1])


def test_as_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    for maps in (ties(rng)[0], rng.standard_normal((6, 5, 5))):
        masks = ties(rng)[1]
        pairs = [(m.ravel(), a.ravel()) for m, a in zip(masks, maps, strict=True)]
        precisions = [metrics.average_precision_score(*pair) for pair in pairs]
        areas = [metrics.roc_auc_score(*pair) for pair in pairs]
        assert average_precision(maps, masks) == pytest.approx(precisions)
        assert auroc(maps, masks) == pytest.approx(areas)


def test_ties_are_what_all_orders_of_them_give_on_average(rng):
    """By every order of six pixels that keeps higher ones first."""
    for _ in range(20):
        values, inside = (
            rng.integers(0, 3, 6),
            rng.permutation([True, True, False, False, False, True]),
        )
        inside[rng.integers(6)] = False
        wanted = inside.sum()
        orders = [o for o in permutations(range(6)) if (np.diff(values[list(o)]) <= 0).all()]
        accuracy = np.mean([inside[list(o[:wanted])].mean() for o in orders])
        hit = np.mean([inside[o[0]] for o in orders])
        pair = values.reshape(1, 2, 3).astype(float), inside.reshape(1, 2, 3)
        assert relevance_rank_accuracy(*pair) == pytest.approx([accuracy])
        assert pointing_game(*pair) == pytest.approx([hit])


def test_a_constant_is_chance_and_a_perfect_map_is_best(rng):
    _, masks = ties(rng)
    share = masks.mean((1, 2))
    flat = np.full(masks.shape, 3.0)
    for measure in (average_precision, relevance_rank_accuracy, pointing_game):
        assert measure(flat, masks) == pytest.approx(share)
    assert auroc(flat, masks) == pytest.approx(np.full(6, 0.5))
    for measure in ALL:
        assert measure(masks.astype(float), masks) == pytest.approx(np.ones(6))
    for measure in (auroc, relevance_rank_accuracy, pointing_game):
        assert (measure(-masks.astype(float), masks) == 0).all()


def test_only_order_matters(rng):
    maps, masks = rng.standard_normal((4, 6, 6)), rng.random((4, 6, 6)) < 0.3
    for measure in ALL:
        assert measure(np.exp(maps), masks) == pytest.approx(measure(maps, masks))


def test_masks_that_cannot_be_missed_or_hit_have_no_value(rng):
    masks = np.zeros((2, 3, 3), bool)
    masks[1] = True
    for measure in ALL:
        assert np.isnan(measure(rng.random((2, 3, 3)), masks)).all()


def test_tolerance_is_a_distance():
    maps, masks = np.zeros((1, 5, 5)), np.zeros((1, 5, 5), bool)
    maps[0, 3, 4], masks[0, 0, 0] = 1, True  # 5 pixels away
    assert pointing_game(maps, masks, tolerance=4.9) == 0
    assert pointing_game(maps, masks, tolerance=5) == 1
    with pytest.raises(ValueError, match="tolerance"):
        pointing_game(maps, masks, tolerance=-1)


def test_as_quantus_without_ties_and_unlike_it_with(rng):
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    settings = {"abs": False, "normalise": False, "disable_warnings": True}
    ranks = quantus.RelevanceRankAccuracy(**settings)
    points = quantus.PointingGame(**settings)
    maps, masks = rng.random((4, 1, 6, 6)), rng.random((4, 1, 6, 6)) < 0.4
    expected = ranks.evaluate_batch(maps, masks)
    assert relevance_rank_accuracy(maps[:, 0], masks[:, 0]) == pytest.approx(expected)
    expected = points.evaluate_batch(a_batch=maps, s_batch=masks).astype(float)
    assert pointing_game(maps[:, 0], masks[:, 0]) == pytest.approx(expected)
    # A map of zeros: theirs are a hit, and what the place of the mask gives.
    corner, zeros = np.zeros((1, 1, 6, 6), bool), np.zeros((1, 1, 6, 6))
    corner[0, 0, :3, :3] = True
    assert points.evaluate_batch(a_batch=zeros, s_batch=corner).all()
    assert pointing_game(zeros[0], corner[0]) == pytest.approx([0.25])
    assert ranks.evaluate_batch(zeros, corner) == pytest.approx([0.5], abs=0.2)
    assert relevance_rank_accuracy(zeros[0], corner[0]) == pytest.approx([0.25])
