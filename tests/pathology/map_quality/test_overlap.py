"""Overlap at thresholds, by hand, by brute force, and which maps a threshold was chosen on."""

import numpy as np
import pytest

from pathology.map_quality import overlap
from pathology.map_quality.overlap import (
    balanced_miou,
    choose_threshold,
    dice,
    iou,
    oracle_dice,
    threshold_robustness,
)


@pytest.fixture
def drawn(rng):
    masks = rng.random((5, 6, 6)) < 0.3
    masks[:, 0, 0], masks[:, 0, 1] = True, False
    return rng.standard_normal(masks.shape).round(1) + masks, masks


def test_by_hand():
    maps = [[[4.0, 3.0], [2.0, 1.0]]]
    masks = np.array([[[True, False], [True, False]]])
    # At 3: two pixels, one of them in the mask of two.
    assert dice(maps, masks, 3) == pytest.approx([2 / 4])
    assert iou(maps, masks, 3) == pytest.approx([1 / 3])
    assert balanced_miou(maps, masks, 3) == pytest.approx([1 / 3])
    # All pixels: the floor.
    assert dice(maps, masks, 0) == pytest.approx([2 * 0.5 / 1.5])


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.3, 9.0])
def test_by_sets_and_as_scikit_learn(drawn, threshold):
    metrics = pytest.importorskip("sklearn.metrics")
    maps, masks = drawn
    for i, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        taken = {p for p in np.ndindex(6, 6) if one[p] >= threshold}
        inside = {p for p in np.ndindex(6, 6) if mask[p]}
        outside = set(np.ndindex(6, 6))
        both = 2 * len(taken & inside) / (len(taken) + len(inside))
        assert dice(maps, masks, threshold)[i] == pytest.approx(both)
        found = [
            len(a & b) / len(a | b)
            for a, b in ((taken, inside), (outside - taken, outside - inside))
        ]
        assert iou(maps, masks, threshold)[i] == pytest.approx(found[0])
        assert balanced_miou(maps, masks, threshold)[i] == pytest.approx(np.mean(found))
        theirs = metrics.f1_score(mask.ravel(), (one >= threshold).ravel(), zero_division=0)
        assert both == pytest.approx(theirs)


def test_a_threshold_is_the_best_of_those_there_are(drawn):
    maps, masks = drawn
    grid = np.linspace(-2, 3, 41)
    means = [dice(maps, masks, t).mean() for t in grid]
    assert choose_threshold(maps, masks, grid) == grid[int(np.argmax(means))]
    chosen = choose_threshold(maps, masks)
    assert dice(maps, masks, chosen).mean() >= max(means) - 0.02  # quantiles are another grid


def test_validation_never_beats_the_oracle(drawn, rng):
    maps, masks = drawn
    others = rng.standard_normal(maps.shape) + masks
    best = oracle_dice(maps, masks)
    assert (dice(maps, masks, choose_threshold(others, masks)) <= best + 1e-12).all()
    expected = [
        max(dice(one[None], mask[None], t)[0] for t in np.unique(one))
        for one, mask in zip(maps, masks, strict=True)
    ]
    assert best == pytest.approx(expected)


def test_empty_masks_have_no_value_and_choose_nothing(drawn):
    maps, masks = drawn
    with_empty = masks.copy()
    with_empty[2] = False
    for measure in (dice, iou, balanced_miou):
        assert np.isnan(measure(maps, with_empty, 0)).tolist() == [False, False, True, False, False]
    others = [0, 1, 3, 4]
    assert choose_threshold(maps, with_empty) == pytest.approx(
        choose_threshold(maps, with_empty, np.quantile(maps, np.linspace(0, 1, 101)))
    )
    grid = np.linspace(-1, 2, 31)
    expected = choose_threshold(maps[others], masks[others], grid)
    assert choose_threshold(maps, with_empty, grid) == expected
    whole = np.ones_like(masks)
    assert np.isnan(balanced_miou(maps, whole, 0)).all()
    assert (dice(maps, whole, -99) == 1).all()
    with pytest.raises(ValueError, match="no mask has a pixel"):
        choose_threshold(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="got none"):
        choose_threshold(maps, masks, [])
    with pytest.raises(ValueError, match="thresholds must be numbers"):
        dice(maps, masks, np.nan)


def test_robustness_is_a_share_of_thresholds(drawn):
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2] = True
    ramp = np.where(mask, 1.0, 0.0)
    # 0 takes all pixels (Dice 2/3), every threshold above takes the mask.
    assert threshold_robustness(ramp, mask, 100) == pytest.approx([0.99])
    assert threshold_robustness(ramp * 5 - 3, mask, 100) == pytest.approx([0.99])
    maps, masks = drawn
    expected = []
    for one, inside in zip(maps, masks, strict=True):
        grid = np.linspace(one.min(), one.max(), 50)
        curve = np.array([dice(one[None], inside[None], t)[0] for t in grid])
        expected.append((curve >= 0.9 * curve.max()).mean())
    assert threshold_robustness(maps, masks, 50) == pytest.approx(expected)
    assert overlap.ENOUGH == 0.9


def test_a_constant_is_not_robust(drawn):
    maps, masks = drawn
    assert np.isnan(threshold_robustness(np.ones_like(maps), masks)).all()
    with pytest.raises(ValueError, match="at least 2"):
        threshold_robustness(maps, masks, 1)
