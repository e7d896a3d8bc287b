"""Ranks of methods over blocks, after Demšar: who is ahead, by how much, and is it chance.

A block is one thing on which all methods are measured. Independent repetitions of a block
(trainings of a network from other seeds) are to be averaged first: as blocks of their own they
would count the same data again.

Source: Demšar, Statistical comparisons of classifiers over multiple data sets, 2006.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def block_ranks(values: NDArray[np.float64], higher_is_better: bool = True) -> NDArray[np.float64]:
    """Ranks within each block, 1 the best; equal values share the mean of their ranks.

    Args:
        values: ``(blocks, methods)``, all defined.
        higher_is_better: which way.

    Raises:
        ValueError: NaN, or no table.
    """
    table = np.asarray(values, float)
    if table.ndim != 2 or np.isnan(table).any():
        raise ValueError("values must be (blocks, methods) without NaN: leave such methods out")
    ranks: NDArray[np.float64] = stats.rankdata(-table if higher_is_better else table, axis=1)
    return ranks


def friedman_test(ranks: NDArray[np.float64]) -> tuple[float, float]:
    """Friedman's chi-squared and its p-value: do any methods differ?

    Args:
        ranks: ``(blocks, methods)`` of :func:`block_ranks`; corrected for ties.

    Returns:
        Statistic and p-value; NaN and 1 where all methods are tied in every block.
    """
    blocks, methods = ranks.shape
    centred = ranks.sum(0) - blocks * (methods + 1) / 2
    spread = float(((ranks - (methods + 1) / 2) ** 2).sum())
    if methods < 2 or spread == 0:
        return math.nan, 1.0
    # The usual formula divided by its correction for ties, in one.
    statistic = (methods - 1) * float((centred**2).sum()) / spread
    return statistic, float(stats.chi2.sf(statistic, methods - 1))


def critical_difference(methods: int, blocks: int, level: float = 0.05) -> float:
    """Nemenyi's: mean ranks further apart than this differ, all pairs taken together.

    Args:
        methods: at least two.
        blocks: at least one.
        level: of a false difference among all pairs.
    """
    if methods < 2 or blocks < 1 or not 0 < level < 1:
        raise ValueError(f"methods >= 2, blocks >= 1, got {methods}, {blocks}, level {level}")
    q = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def cliques(mean_ranks: NDArray[np.float64], difference: float) -> list[tuple[int, ...]]:
    """Methods that cannot be told apart, as bars of a critical-difference plot join them.

    Args:
        mean_ranks: ``(methods,)``.
        difference: of :func:`critical_difference`.

    Returns:
        Indices, best first, of every largest run of at least two whose ends are at most
        ``difference`` apart.
    """
    order = np.argsort(mean_ranks, kind="stable")
    ranks = np.asarray(mean_ranks, float)[order]
    found: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(ranks)):
        stop = int(np.searchsorted(ranks, ranks[start] + difference + 1e-12, side="right"))
        if stop > reached and stop - start > 1:
            found.append(tuple(int(i) for i in order[start:stop]))
        reached = max(reached, stop)
    return found


def kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Kendall's tau-b: 1 for the same order, -1 for the opposite one, corrected for ties.

    Args:
        first: ``(n,)``; where either is NaN the entry is left out.
        second: ``(n,)``.

    Returns:
        NaN where fewer than two entries remain, or one side does not order them at all.
    """
    both = ~np.isnan(first) & ~np.isnan(second)
    a, b = np.asarray(first)[both], np.asarray(second)[both]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.kendalltau(a, b).statistic)
