"""Paired differences, sign flips and Holm against definitions written out."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pathology.metrics.comparison import (
    group_means,
    holm,
    paired_difference,
    sign_flip_test,
    wilcoxon_test,
)


def holm_by_definition(p, level):
    """Reject from the smallest on, as long as each is at most ``level / (number left)``."""
    rejected = [False] * len(p)
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] > level / (len(p) - step):
            break
        rejected[i] = True
    return rejected


def flips_by_definition(differences, groups):
    names = sorted(set(groups))
    seen = []
    for signs in itertools.product((1, -1), repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        seen.append(abs(sum(sign[g] * d for g, d in zip(groups, differences, strict=True))))
    return float(np.mean([one >= abs(sum(differences)) - 1e-9 for one in seen]))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, never falling.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]).size == 0


def test_holm_is_the_definition(rng):
    for _ in range(200):
        p = rng.random(rng.integers(1, 9)) ** 3
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2):
            assert list(adjusted <= level) == holm_by_definition(list(p), level)


def test_a_test_that_was_not_made_does_not_count_among_those_that_were():
    found = holm([0.01, math.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(found[1])


@pytest.mark.parametrize("p", [[1.2], [-0.1]])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm(p)


def test_three_groups_that_agree_can_say_no_more_than_a_quarter():
    # 8 patterns of signs; all the same sign twice.
    p = sign_flip_test(np.array([1.0, 2, 3, 4]), np.array(list("aabc")))
    assert p == pytest.approx([0.25])


def test_flips_are_of_all_patterns_of_groups(rng):
    for groups in (3, 6, 9):
        owner = np.append(np.arange(groups), rng.integers(0, groups, 12))
        differences = rng.normal(0.3, 1, len(owner))
        expected = flips_by_definition(list(differences), list(owner))
        assert sign_flip_test(differences, owner) == pytest.approx([expected])


def test_drawn_flips_come_close_to_all_of_them(rng, monkeypatch):
    differences = rng.normal(0.5, 1, 12)
    exact = sign_flip_test(differences)[0]
    monkeypatch.setattr("pathology.metrics.comparison.EXACT_GROUPS", 2)
    drawn = sign_flip_test(differences, flips=20000)[0]
    # Four standard errors of 20000 draws of a share.
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / 20000)


def test_drawn_flips_are_never_zero():
    assert sign_flip_test(np.full(40, 5.0), flips=99)[0] == pytest.approx(0.01)


def test_columns_are_tested_each_for_itself(rng):
    table = rng.normal(0.2, 1, (10, 4))
    table[3, 1] = np.nan
    table[:, 3] = np.nan
    found = sign_flip_test(table)
    for i in range(3):
        kept = ~np.isnan(table[:, i])
        assert found[i] == pytest.approx(sign_flip_test(table[kept, i])[0])
    assert math.isnan(found[3])


def test_false_alarms_are_as_rare_as_they_should_be(rng):
    """Patients of several examples that share a shift: by example the test would cry wolf."""
    owner = np.repeat(np.arange(10), 8)
    noise = rng.normal(0, 1, (400, 10))[:, owner] + rng.normal(0, 0.3, (400, 80))
    by_patient = np.mean(sign_flip_test(noise.T, owner) <= 0.05)
    by_example = np.mean(sign_flip_test(noise.T, flips=499) <= 0.05)
    assert by_patient < 0.09  # 0.05 and four standard errors
    assert by_example > 0.3


def test_a_mean_is_of_the_examples_and_its_interval_of_the_groups(rng):
    owner = np.repeat(np.arange(8), 5)
    values = np.repeat(rng.normal(size=8), 5)
    (by_group,) = group_means(values, owner)
    (by_example,) = group_means(values)
    assert by_group.value == by_example.value == pytest.approx(values.mean())
    assert by_group.high - by_group.low > 1.5 * (by_example.high - by_example.low)


def test_missing_values_are_in_no_mean():
    first, second, none = group_means(np.array([[1.0, 2, np.nan], [3, np.nan, np.nan]]))
    assert (first.value, second.value) == (2, 2)
    assert math.isnan(none.value)
    assert none.note == "not defined on any example"


def test_pairs_that_lack_a_value_are_counted():
    first = np.array([1.0, np.nan, 3, 4])
    second = np.array([0.0, 1, np.nan, 1])
    found = paired_difference(first, second, np.array(list("aabb")))
    assert found.estimate.value == pytest.approx(2)
    assert (found.pairs, found.examples, found.groups) == (2, 4, 2)
    assert found.p == pytest.approx(0.5)
    with pytest.raises(ValueError, match="pairs must match"):
        paired_difference(first, second[:3])


def test_wilcoxon_is_of_groups(rng):
    owner = np.repeat(np.arange(9), 3)
    differences = rng.normal(0.4, 1, 27)
    means = differences.reshape(9, 3).mean(1)
    assert wilcoxon_test(differences, owner) == pytest.approx(stats.wilcoxon(means).pvalue)
    assert wilcoxon_test(np.zeros(4)) == 1
    assert math.isnan(wilcoxon_test(np.full(3, np.nan)))
    found = paired_difference(differences, np.zeros(27), owner, test="wilcoxon")
    assert found.p == pytest.approx(stats.wilcoxon(means).pvalue)


def test_nothing_to_compare_says_so():
    found = paired_difference(np.full(3, np.nan), np.ones(3))
    assert math.isnan(found.p)
    assert (found.pairs, found.groups) == (0, 0)
    assert "not defined" in found.estimate.note
