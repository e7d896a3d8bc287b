"""Stability: only where the answer stays, and shifts are compared in the moved frame."""

import numpy as np
import pytest

from pathology.map_quality.agreement import spearman
from pathology.map_quality.changes import CHANGES, ScannerChange, Shift
from pathology.map_quality.question import Question
from pathology.map_quality.stability import is_held, stability


@pytest.fixture
def image(rng):
    return rng.uniform(0.3, 0.8, (24, 24, 3)).astype(np.float32)


def still(images):
    return np.tile([0.0, 1.0], (len(images), 1))


def test_a_map_that_moves_with_the_image_is_perfectly_stable(image):
    for found in stability(Question(still, image, 1), lambda x: x.sum(-1), changes=[Shift(2, -3)]):
        assert found.similarity == pytest.approx(1)
        assert found.relative_change == 0


def test_a_map_that_stays_where_it_was_is_not(image, rng):
    fixed = rng.normal(size=(24, 24))

    def explain(images):
        return np.tile(fixed, (len(images), 1, 1))

    shifted, darker = stability(
        Question(still, image, 1), explain, changes=[Shift(2, -3), ScannerChange((0.9, 0.9, 0.9))]
    )
    assert shifted.similarity == pytest.approx(spearman(fixed[:-2, 3:], fixed[2:, :-3]))
    assert abs(shifted.similarity) < 0.3
    assert darker.similarity == 1


def test_relative_change_by_hand(image):
    (found,) = stability(
        Question(still, image, 1), lambda x: x.sum(-1), changes=[ScannerChange((0.9, 0.9, 0.9))]
    )
    assert found.similarity == pytest.approx(1, abs=1e-4)  # rounding may swap neighbours
    assert found.relative_change == pytest.approx(0.1, rel=1e-4)


def test_changed_answers_have_no_value_and_are_not_explained(image):
    asked = []

    def explain(images):
        asked.extend(images)
        return images.sum(-1)

    def score(images):
        light = images.mean((1, 2, 3), dtype=np.float64)
        return np.stack([np.zeros(len(images)), light], 1)

    changes = [ScannerChange((0.8, 0.8, 0.8)), ScannerChange((0.95, 0.95, 0.95))]
    lost, kept = stability(Question(score, image, 1, batch=1), explain, changes=changes)
    assert np.isnan(lost.similarity)
    assert np.isnan(lost.relative_change)
    assert lost.note.startswith("the answer changes: logit 0.5")
    assert not kept.note
    assert kept.changed_logit == pytest.approx(0.95 * kept.logit, rel=1e-6)
    assert len(asked) == 2  # the image and the change that counts


def test_held_needs_class_and_logit():
    logits = np.array([1.0, 2.0])
    changed = np.array([[1.0, 2.19], [1.0, 2.21], [1.0, 1.81], [2.0, 1.9], [-9.0, 2.0]])
    np.testing.assert_array_equal(is_held(logits, changed, 1, 0.1), [1, 0, 1, 0, 1])


def test_constant_maps_have_no_value(image):
    found = stability(Question(still, image, 1, batch=4), lambda x: np.ones(x.shape[:3]))
    assert len(found) == len(CHANGES)
    for one in found:
        assert np.isnan(one.similarity)
        assert one.note == "a map is constant"
