"""Metrics and their bootstrap intervals."""

import numpy as np
import pytest

from pathology.tasks.intervals import measure


def auroc_by_pairs(scores, labels):
    """Share of (positive, negative) pairs in the right order, ties half."""
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


def test_values_equal_their_definitions(rng):
    labels = rng.integers(0, 2, 60)
    logits = rng.normal(size=(60, 2)) + np.eye(2)[labels]
    estimates = measure(logits, labels, repeats=20)
    difference = logits[:, 1] - logits[:, 0]
    assert estimates["auroc"].value == pytest.approx(auroc_by_pairs(difference, labels), abs=1e-6)
    hit = logits.argmax(1) == labels
    recalls = [hit[labels == c].mean() for c in (0, 1)]
    assert estimates["balanced_accuracy"].value == pytest.approx(np.mean(recalls), abs=1e-6)


def test_intervals_hold_the_value_and_follow_the_seed(rng):
    labels = rng.integers(0, 3, 90)
    logits = rng.normal(size=(90, 3)) + np.eye(3)[labels]
    one, two = (measure(logits, labels, repeats=50, seed=s) for s in (1, 1))
    assert one == two
    for estimate in one.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_groups_are_drawn_as_a_whole(rng):
    # Ten patients whose images all agree: by patient the interval must be wider than by image.
    groups = np.repeat(np.arange(10), 30)
    labels = np.repeat(np.arange(10) % 2, 30)
    shift = np.repeat(rng.normal(size=10), 30)
    logits = np.stack([np.zeros(300), shift + 0.3 * labels + 0.01 * rng.normal(size=300)], 1)
    by_image = measure(logits, labels, repeats=200)["auroc"]
    by_patient = measure(logits, labels, groups, repeats=200)["auroc"]
    assert by_patient.high - by_patient.low > 2 * (by_image.high - by_image.low)


def test_a_class_without_images_is_an_error():
    with pytest.raises(ValueError, match="no image of class index 1"):
        measure(np.zeros((4, 2)), np.zeros(4, dtype=int))


def test_one_patient_has_no_interval(rng):
    labels = np.arange(20) % 2
    estimate = measure(rng.normal(size=(20, 2)), labels, np.zeros(20))["auroc"]
    assert 0 < estimate.value < 1
    assert np.isnan(estimate.low)
    assert "no interval" in str(estimate)
