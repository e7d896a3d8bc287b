"""Bootstrap intervals: by group, by seed, and none where there can be none."""

import numpy as np
import pandas as pd
import pytest

from pathology.metrics import Predictions, measure
from pathology.metrics.bootstrap import drawn_weights, interval, sample
from tests.pathology.metrics.made import of_classes, of_survival


def test_intervals_hold_the_value_and_follow_the_seed(rng):
    predictions = of_classes(rng, 90)
    one, two, other = (measure(predictions, repeats=50, seed=s) for s in (1, 1, 2))
    assert one == two
    assert one["auroc"] != other["auroc"]
    for estimate in one.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.draws == 50


def test_draws_are_of_whole_groups_and_as_many_as_there_are():
    groups = np.repeat(["p", "q", "r"], [1, 2, 3])
    draws = np.concatenate(list(drawn_weights(6, groups, 200, seed=0)))
    assert draws.shape == (200, 6)
    per_group = draws[:, [0, 1, 3]]
    assert (per_group.sum(1) == 3).all()
    np.testing.assert_array_equal(draws, np.repeat(per_group, [1, 2, 3], axis=1))
    # Binomial(3, 1/3): mean 1, variance 2/3; 600 correlated draws.
    assert per_group.mean() == 1
    assert per_group.var() == pytest.approx(2 / 3, abs=0.1)


def test_chunks_do_not_change_the_draws(monkeypatch):
    from pathology.metrics import bootstrap

    whole = np.concatenate(list(drawn_weights(5, None, 40, seed=3)))
    monkeypatch.setattr(bootstrap, "_CHUNK", 11)
    np.testing.assert_array_equal(np.concatenate(list(drawn_weights(5, None, 40, seed=3))), whole)


def test_groups_are_drawn_as_a_whole(rng):
    # Ten patients whose images all agree: by patient the interval must be wider than by image.
    groups = np.repeat(np.arange(10), 30)
    labels = np.repeat(np.arange(10) % 2, 30)
    shift = np.repeat(rng.normal(size=10), 30)
    logits = np.stack([np.zeros(300), shift + 0.3 * labels + 0.01 * rng.normal(size=300)], 1)
    truth = pd.DataFrame({"label": np.array(["a", "b"])[labels]})
    by_image, by_patient = (
        measure(Predictions("classes", ["a", "b"], logits, truth, g), repeats=200)["auroc"]
        for g in (None, groups)
    )
    assert by_patient.high - by_patient.low > 2 * (by_image.high - by_image.low)


def test_the_interval_of_a_mean_is_the_textbooks(rng):
    values = rng.normal(size=400)
    found, draws = sample(lambda w: {"mean": w @ values / w.sum(1)}, 400, repeats=4000)
    estimate = interval(found["mean"], draws["mean"], 0.95)
    half = 1.96 * values.std() / 20
    # 4000 draws: the ends are known to about 3 % of the half width.
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_one_patient_has_no_interval(rng):
    some = of_classes(rng, 20)
    one = Predictions("classes", list("abc"), some.logits, some.truth, np.zeros(20))
    estimate = measure(one)["auroc"]
    assert 0 < estimate.value < 1
    assert np.isnan(estimate.low)
    assert "no interval: one group" in str(estimate)


def test_draws_without_a_class_are_left_out_and_counted(rng):
    some = of_classes(rng, 60, "ab")
    # All of b in one of three patients: one draw in three or so lacks it.
    groups = np.where(some.codes == 1, "p", np.where(np.arange(60) % 2, "q", "r"))
    groups[np.flatnonzero(some.codes == 0)[:5]] = "p"
    two = Predictions("classes", list("ab"), some.logits, some.truth, groups)
    estimates = measure(two, repeats=300)
    assert 150 < estimates["auroc"].draws < 300
    assert estimates["accuracy"].draws == 300
    assert estimates["auroc"].low < estimates["auroc"].high


def test_too_few_draws_with_a_class_make_no_interval():
    draws = np.r_[np.full(60, np.nan), np.linspace(0, 1, 40)]
    estimate = interval(0.5, draws, 0.95)
    assert (estimate.draws, np.isnan(estimate.low)) == (40, True)
    assert "too few groups" in str(estimate)


def test_survival_has_intervals(rng):
    predictions = of_survival(rng, 60)
    estimate = measure(predictions, repeats=100)["c_index"]
    assert 0.5 < estimate.low < estimate.value < estimate.high < 1
