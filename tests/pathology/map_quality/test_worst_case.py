"""Worst case: a search that finds what can be found, and a probability that is known."""

import numpy as np
import pytest

from pathology.map_quality.agreement import spearman
from pathology.map_quality.question import Question
from pathology.map_quality.worst_case import chance_of_change, worst_change


def grey(side=4):
    return np.full((side, side, 3), 0.5, np.float32)


def still(images):
    return np.tile([0.0, 1.0], (len(images), 1))


def switch(images):
    """A map that turns upside down where the first pixel's red is above a hair over its own."""
    rising = np.arange(images[0, ..., 0].size, dtype=float).reshape(images.shape[1:3])
    up = images[:, 0, 0, 0] > 0.5 + 0.8 * 2 / 255
    return np.where(up[:, None, None], -rising, rising)


def test_the_search_finds_a_map_that_can_be_turned(rng):
    found = worst_change(Question(still, grey(), 1), switch, rng, rounds=3)
    assert found.distance == 1
    assert abs(found.image - 0.5).max() <= 2 / 255 + 1e-7
    assert spearman(switch(found.image[None])[0], switch(grey()[None])[0]) == -1


def test_the_search_climbs(rng):
    start = np.linspace(0.2, 0.8, 64).reshape(8, 8, 1).repeat(3, -1).astype(np.float32)

    def explain(images):
        return images[..., 0] + 0.2 * images[..., 1]

    one = worst_change(Question(still, start, 1, batch=8), explain, rng, rounds=40, radius=0.05)
    assert (np.diff(one.path) >= 0).all()
    assert one.path[-1] > 1.3 * one.path[0] > 0
    assert one.evaluations == 321
    # What it reports is the distance of the map of the image that it returns.
    rho = spearman(explain(one.image[None])[0], explain(start[None])[0])
    assert one.distance == pytest.approx((1 - rho) / 2)


def test_a_changed_answer_is_no_find(rng):
    def score(images):
        up = images[:, 0, 0, 0] > 0.5 + 0.8 * 2 / 255
        return np.stack([np.zeros(len(images)), np.where(up, 2.0, 1.0)], 1)

    found = worst_change(Question(score, grey(), 1), switch, rng, rounds=3)
    assert found.distance == 0
    np.testing.assert_array_equal(found.image, grey())


def test_the_probability_of_a_turn(rng):
    # Uniform in plus or minus the radius: above 0.8 of it with probability 0.1.
    plain = chance_of_change(Question(still, grey(), 1), switch, rng, rare=False, samples=1000)
    assert plain.low < 0.1 < plain.high
    assert chance_of_change(
        Question(still, grey(), 1), switch, rng, runs=5
    ).probability == pytest.approx(0.1, abs=0.04)


def test_constant_maps_have_no_worst_case(rng):
    def constant(images):
        return np.ones(images.shape[:3])

    assert np.isnan(worst_change(Question(still, grey(), 1), constant, rng).distance)
    assert chance_of_change(Question(still, grey(), 1), constant, rng).note == "the map is constant"
    with pytest.raises(ValueError, match="radius"):
        worst_change(Question(still, grey(), 1), switch, rng, radius=0)
