"""Ranks, Friedman, Nemenyi and Kendall against printed tables and definitions."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pathology.metrics.ranks import (
    block_ranks,
    cliques,
    critical_difference,
    friedman_test,
    kendall_tau,
)


def test_ties_share_ranks():
    table = np.array([[0.9, 0.5, 0.9], [1, 2, 3]])
    assert block_ranks(table).tolist() == [[1.5, 3, 1.5], [3, 2, 1]]
    assert block_ranks(table, higher_is_better=False).tolist() == [[2.5, 1, 2.5], [1, 2, 3]]
    with pytest.raises(ValueError, match="without NaN"):
        block_ranks(np.array([[1, np.nan]]))


def test_friedman_is_scipys(rng):
    for decimals in (None, 1):  # with ties as well
        table = rng.normal(size=(9, 5)) + np.arange(5) * 0.4
        if decimals is not None:
            table = table.round(decimals)
        expected = stats.friedmanchisquare(*table.T)
        assert friedman_test(block_ranks(table)) == pytest.approx(tuple(expected))


def test_friedman_of_ties_only_finds_nothing():
    statistic, p = friedman_test(block_ranks(np.ones((4, 3))))
    assert math.isnan(statistic)
    assert p == 1


@pytest.mark.parametrize(
    ("methods", "level", "q"),
    # Demšar 2006, table 5(a).
    [(2, 0.05, 1.960), (4, 0.05, 2.569), (10, 0.05, 3.164), (4, 0.10, 2.291), (10, 0.10, 2.920)],
)
def test_the_critical_difference_is_the_printed_one(methods, level, q):
    expected = q * math.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14, level) == pytest.approx(expected, rel=3e-4)


def test_the_papers_example():
    # Demšar 2006, section 3.2.2: four classifiers on 14 data sets.
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_bars_join_what_is_close():
    ranks = np.array([3.0, 1.0, 1.8, 4.5])
    assert cliques(ranks, 1.3) == [(1, 2), (2, 0)]
    assert cliques(ranks, 0.5) == []
    assert cliques(ranks, 9) == [(1, 2, 0, 3)]


def test_no_bar_lies_within_another(rng):
    for _ in range(50):
        ranks = rng.random(7) * 6
        found = [set(one) for one in cliques(ranks, 1.5)]
        assert not any(a < b for a, b in itertools.permutations(found, 2))
        joined = {frozenset(pair) for one in found for pair in itertools.combinations(one, 2)}
        close = {
            frozenset(pair)
            for pair in itertools.combinations(range(7), 2)
            if abs(ranks[pair[0]] - ranks[pair[1]]) <= 1.5
        }
        assert joined == close


def test_tau_is_the_definition(rng):
    for _ in range(30):
        a, b = rng.integers(0, 4, (2, 8)).astype(float)
        pairs = list(itertools.combinations(range(8), 2))
        sign = sum(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs)
        untied = [sum(x[i] != x[j] for i, j in pairs) for x in (a, b)]
        if min(untied):
            assert kendall_tau(a, b) == pytest.approx(sign / math.sqrt(untied[0] * untied[1]))


def test_tau_of_what_does_not_order_is_not_defined():
    assert math.isnan(kendall_tau(np.ones(4), np.arange(4.0)))
    assert math.isnan(kendall_tau(np.array([1, np.nan, 3]), np.array([np.nan, 2, 3])))
    assert kendall_tau(np.array([1, np.nan, 3]), np.array([5, 0, 9])) == 1
