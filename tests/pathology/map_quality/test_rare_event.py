"""Probabilities that are known: by plain sampling, and in steps."""

import numpy as np
import pytest

from pathology.map_quality.rare_event import monte_carlo, subset_simulation


def corner(points):
    """The least of three coordinates: above t with probability ((1 - t) / 2) ** 3."""
    return points[:, :3].min(1).astype(np.float64)


def simplex(points):
    """The sum of three coordinates: above 3 - e with probability e ** 3 / 48."""
    return points[:, :3].sum(1, dtype=np.float64)


def test_plain_sampling_and_its_interval(rng):
    found = monte_carlo(corner, 5, 1 - 2 * 0.3 ** (1 / 3), rng, samples=2000)
    assert found.probability == pytest.approx(0.3, abs=0.05)  # five deviations
    assert found.low < 0.3 < found.high
    assert found.standard_error == pytest.approx(np.sqrt(0.21 / 2000), rel=0.05)
    never = monte_carlo(corner, 5, 2.0, rng, samples=100)
    # Nothing seen in a hundred: below 3.6 %, not impossible.
    assert never.probability == never.low == 0
    assert never.high == pytest.approx(1 - 0.025 ** (1 / 100))


@pytest.mark.parametrize("dimension", [3, 300])
@pytest.mark.parametrize(
    ("value", "threshold_of"),
    [(corner, lambda p: 1 - 2 * p ** (1 / 3)), (simplex, lambda p: 3 - (48 * p) ** (1 / 3))],
)
def test_steps_reach_what_is_rare(value, threshold_of, dimension, rng):
    for probability in (0.2, 1e-3, 1e-5):
        found = subset_simulation(
            value, dimension, threshold_of(probability), rng, samples=500, runs=8
        )
        # Eight runs of five hundred scatter by about 0.3 in logarithm for the rarest.
        assert found.probability == pytest.approx(probability, rel=0.8)
        assert abs(found.probability - probability) < 5 * found.standard_error + 0.2 * probability
        # Plain sampling would need a million.
        assert found.evaluations < 8 * 500 * 6


def test_it_agrees_with_plain_sampling(rng):
    threshold = 1 - 2 * 0.03 ** (1 / 3)
    plain = monte_carlo(corner, 10, threshold, rng, samples=4000)
    steps = subset_simulation(corner, 10, threshold, rng, samples=400, runs=10)
    assert abs(plain.probability - steps.probability) < 4 * np.hypot(
        plain.standard_error, steps.standard_error
    )


def test_what_is_not_reached_is_bounded_and_said(rng):
    impossible = subset_simulation(corner, 4, 2.0, rng, samples=100, levels=4)
    assert np.isnan(impossible.probability)
    assert impossible.high < 1e-3
    assert impossible.note == "not reached in 1 of 1 runs"
    plateau = subset_simulation(lambda p: np.sign(p[:, 0]).astype(float), 4, 2.0, rng)
    assert np.isnan(plateau.probability)
    # Half of the points are on it, and of two hundred there none is higher.
    assert plateau.high == pytest.approx(0.5 * 3 / 200, rel=0.25)


def test_what_must_not_be_is_not_counted(rng):
    def value(points):
        return np.where(points[:, 3] > 0, corner(points), -np.inf)

    found = subset_simulation(value, 5, 1 - 2 * 0.01 ** (1 / 3), rng, samples=500, runs=8)
    assert found.probability == pytest.approx(0.005, rel=0.5)


def test_settings_that_estimate_nothing(rng):
    with pytest.raises(ValueError, match="two survivors"):
        subset_simulation(corner, 3, 0.5, rng, samples=10)
