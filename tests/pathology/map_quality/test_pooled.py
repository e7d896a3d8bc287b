"""Pooled precision: against scikit-learn, for weights against repeated images, and the protocol."""

import numpy as np
import pytest

from pathology.map_quality.pooled import (
    PXAP_THRESHOLDS,
    PooledPrecision,
    pixel_average_precision,
    pooled_average_precision,
    scaled,
)
from pathology.metrics.bootstrap import sample


@pytest.fixture
def drawn(rng):
    masks = rng.random((8, 7, 7)) < 0.2
    masks[4:] = False  # normal ones
    return rng.standard_normal(masks.shape).round(2) + masks, masks


def protocol(maps, masks):
    """The sum over thresholds, pixel by pixel, as the paper has it."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    unit = (maps - low) / (high - low)
    area, before = 0.0, 0.0
    for threshold in PXAP_THRESHOLDS[::-1]:
        taken = unit >= threshold
        if taken.any():
            recall = (taken & masks).sum() / masks.sum()
            area += (taken & masks).sum() / taken.sum() * (recall - before)
            before = recall
    return area


def test_by_hand():
    maps = [[[4.0, 3.0]], [[2.0, 1.0]]]
    masks = np.array([[[True, False]], [[True, False]]])
    assert pooled_average_precision(maps, masks) == pytest.approx((1 + 2 / 3) / 2)
    assert PooledPrecision(maps, masks).prevalence == 0.5
    # Scaled, each image has its own highest pixel, and it is right.
    assert pixel_average_precision(maps, masks)() == pytest.approx([1])


def test_as_scikit_learn(drawn):
    metrics = pytest.importorskip("sklearn.metrics")
    maps, masks = drawn
    expected = metrics.average_precision_score(masks.ravel(), maps.ravel())
    assert pooled_average_precision(maps, masks) == pytest.approx(expected)
    assert PooledPrecision(maps, masks)() == pytest.approx([expected])


def test_weights_are_images_that_are_there_so_often(drawn, rng):
    maps, masks = drawn
    pooled, pxap = PooledPrecision(maps, masks), pixel_average_precision(maps, masks)
    weights = rng.integers(0, 4, (10, len(maps)))
    for row, ours, protocols in zip(weights, pooled(weights), pxap(weights), strict=True):
        chosen = np.repeat(np.arange(len(maps)), row)
        assert ours == pytest.approx(pooled_average_precision(maps[chosen], masks[chosen]))
        assert protocols == pytest.approx(protocol(maps[chosen], masks[chosen]))


def test_few_thresholds_are_close(rng):
    masks = rng.random((20, 16, 16)) < 0.1
    maps = rng.standard_normal(masks.shape) + 2 * masks
    exact = pooled_average_precision(maps, masks)
    few = PooledPrecision(maps, masks, most=256)
    assert len(few.thresholds) <= 256
    # A bin holds one pixel in 256, and does not know the order of those in it.
    assert few() == pytest.approx([exact], abs=0.02)


def test_the_protocol(drawn):
    maps, masks = drawn
    assert pixel_average_precision(maps, masks)() == pytest.approx([protocol(maps, masks)])
    assert len(PXAP_THRESHOLDS) == 1001


def test_scaling_each_map_loses_what_logits_know(rng):
    """Normal images have low logits; scaled, their highest pixels are as high as tumour's."""
    masks = np.zeros((20, 8, 8), bool)
    masks[:10, :2] = True
    maps = rng.standard_normal(masks.shape) * 0.2 + 5 * masks
    assert pooled_average_precision(maps, masks) == pytest.approx(1)
    assert pixel_average_precision(maps, masks)()[0] < 0.9


def test_constants_are_chance_and_perfect_maps_best(drawn):
    _, masks = drawn
    flat = np.full(masks.shape, 2.0)
    prevalence = masks.mean()
    assert pooled_average_precision(flat, masks) == pytest.approx(prevalence)
    assert pixel_average_precision(flat, masks)() == pytest.approx([prevalence])
    assert (scaled(flat) == 0).all()
    perfect = masks.astype(float)
    assert pooled_average_precision(perfect, masks) == pytest.approx(1)
    assert pixel_average_precision(perfect, masks)() == pytest.approx([1])


def test_undefined_without_either_kind(drawn):
    maps, masks = drawn
    pooled = PooledPrecision(maps, masks)
    only_normal = np.repeat([[0, 1]], 4, axis=1).reshape(1, -1)[:, [0, 0, 0, 0, 4, 5, 6, 7]]
    assert np.isnan(pooled(only_normal)).all()
    assert np.isnan(pooled(np.zeros((2, 8)))).all()
    assert np.isnan(pooled_average_precision(maps, np.ones_like(masks)))
    assert np.isnan(pooled_average_precision(maps, np.zeros_like(masks)))


def test_bootstrapped_by_patient(drawn):
    maps, masks = drawn
    pooled = PooledPrecision(maps, masks)
    patients = np.array(["a", "a", "b", "b", "c", "c", "d", "d"], dtype=object)
    values, draws = sample(lambda w: {"ap": pooled(w)}, 8, patients, repeats=200)
    assert values["ap"] == pytest.approx(pooled_average_precision(maps, masks))
    assert draws["ap"].shape == (200,)
    assert np.nanstd(draws["ap"]) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": [1, 0]}, "ascending"),
        ({"thresholds": []}, "ascending"),
        ({"most": 1}, "at least 2"),
    ],
)
def test_what_is_no_threshold(drawn, change, message):
    with pytest.raises(ValueError, match=message):
        PooledPrecision(*drawn, **change)


def test_what_are_no_weights(drawn):
    pooled = PooledPrecision(*drawn)
    for weights in (np.ones(8), np.ones((1, 7)), -np.ones((1, 8))):
        with pytest.raises(ValueError, match="weights"):
            pooled(weights)
    nothing = np.empty((0, 3, 3))
    for pool in (PooledPrecision, pooled_average_precision):
        with pytest.raises(ValueError, match="got none"):
            pool(nothing, nothing.astype(bool))
