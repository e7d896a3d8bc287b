"""Is one better than the other: paired differences by group, and tests that count together.

Two things measured on the same examples are compared example by example, and examples of a patient
are not independent: patients are drawn, or change sign, as a whole. What is inferred holds for
further patients and for the networks at hand; examples of one trained network say nothing about
another training.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pathology.metrics.bootstrap import (
    Estimate,
    Weights,
    check_bootstrap,
    count_groups,
    interval,
    sample,
)

Test = Literal["sign flip", "wilcoxon"]
EXACT_GROUPS = 14
"""Up to so many groups every pattern of signs is tried; beyond, patterns are drawn."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the first has more than the second, on the same examples.

    Args:
        estimate: mean difference over pairs, with its bootstrap interval by group.
        p: two-sided, of one test by itself; NaN where no pair is defined.
        pairs: examples on which both are defined, of which all this is made.
        examples: all.
        groups: independent parts of the pairs.
    """

    estimate: Estimate
    p: float
    pairs: int
    examples: int
    groups: int


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    groups: NDArray[Any] | None = None,
    *,
    test: Test = "sign flip",
    repeats: int = 1000,
    flips: int = 9999,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two on the same examples.

    Args:
        first: ``(n,)``, NaN where not defined.
        second: ``(n,)``, of the same examples.
        groups: ``(n,)`` what is drawn, or changes sign, as a whole; each example when omitted.
        test: :func:`sign_flip_test` or :func:`wilcoxon_test`.
        repeats: bootstrap draws.
        flips: patterns of signs that are drawn where not all are tried.
        level: of the interval.
        seed: of the drawing.

    Returns:
        The difference; pairs that lack a value are left out and counted.

    Raises:
        ValueError: shapes that differ, or an argument out of range.
    """
    if np.ndim(first) != 1 or np.shape(first) != np.shape(second):
        raise ValueError(f"pairs must match, got {np.shape(first)} and {np.shape(second)}")
    differences = np.asarray(first, float) - np.asarray(second, float)
    kept = ~np.isnan(differences)
    owners = None if groups is None else np.asarray(groups)[kept]
    (estimate,) = group_means(differences, groups, repeats=repeats, level=level, seed=seed)
    if test == "wilcoxon":
        p = wilcoxon_test(differences, groups)
    else:
        p = float(sign_flip_test(differences, groups, flips=flips, seed=seed)[0])
    count = int(kept.sum())
    return Difference(estimate, p, count, len(kept), count_groups(count, owners) if count else 0)


def group_means(
    values: NDArray[np.float64],
    groups: NDArray[Any] | None = None,
    *,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Estimate]:
    """Means over examples with bootstrap intervals by group, a column each.

    A NaN is no value: means are of those that are defined, in each draw too. Say how many those
    are wherever the mean is shown.

    Args:
        values: ``(n,)`` or ``(n, columns)``.
        groups: ``(n,)`` what is drawn as a whole; each example when omitted.
        repeats: draws.
        level: of the intervals.
        seed: of the draws, which all columns share.

    Raises:
        ValueError: an argument out of range.
    """
    check_bootstrap(repeats, level)
    columns = _columns(values)
    defined = ~np.isnan(columns)
    filled = np.where(defined, columns, 0.0)

    def statistic(weights: Weights) -> dict[str, NDArray[np.float64]]:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (weights @ filled) / (weights @ defined.astype(float))
        return {str(i): means[:, i] for i in range(columns.shape[1])}

    found: list[Estimate] = []
    if not len(columns):
        return [Estimate(math.nan, note="no examples")] * columns.shape[1]
    means, draws = sample(statistic, len(columns), groups, repeats=repeats, seed=seed)
    for name, value in means.items():
        found.append(interval(value, draws[name], level, "not defined on any example"))
    return found


def sign_flip_test(
    differences: NDArray[np.float64],
    groups: NDArray[Any] | None = None,
    *,
    flips: int = 9999,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Two-sided p-values of mean differences of zero, a column each, by changing groups' signs.

    Were the two alike, a group's differences would as well have the other sign. The p-value is the
    share of patterns of signs whose mean is at least as far from zero; every pattern is tried up to
    :data:`EXACT_GROUPS` groups, else the observed one is counted among those drawn. With ``g``
    groups no p-value is below ``2 ** (1 - g)``.

    Args:
        differences: ``(n,)`` or ``(n, columns)``; NaN is no pair and is left out.
        groups: ``(n,)``; each example when omitted.
        flips: patterns drawn.
        seed: of the drawing.

    Returns:
        ``(columns,)``; NaN where no pair is defined.

    Source: Phipson and Smyth, Permutation p-values should never be zero, 2010.
    """
    columns = _columns(differences)
    owner = np.arange(len(columns)) if groups is None else np.unique(groups, return_inverse=True)[1]
    defined = ~np.isnan(columns)
    sums = np.zeros((int(owner.max()) + 1 if len(owner) else 0, columns.shape[1]))
    np.add.at(sums, owner, np.where(defined, columns, 0.0))
    observed = np.abs(sums.sum(0))
    # Sums of the same numbers in another order differ by rounding.
    slack = 1e-12 * np.abs(sums).sum(0)
    if len(sums) <= EXACT_GROUPS:
        codes = np.arange(2 ** max(0, len(sums) - 1))[:, None]  # the first sign: by symmetry
        signs = 1.0 - 2.0 * ((codes >> np.arange(len(sums))) & 1)
        p = (np.abs(signs @ sums) >= observed - slack).mean(0)
    else:
        random = np.random.default_rng(seed)
        signs = 1.0 - 2.0 * random.integers(0, 2, (flips, len(sums)))
        p = (1 + (np.abs(signs @ sums) >= observed - slack).sum(0)) / (1 + flips)
    return np.where(defined.any(0), p, np.nan)


def wilcoxon_test(differences: NDArray[np.float64], groups: NDArray[Any] | None = None) -> float:
    """Two-sided p-value of Wilcoxon's signed ranks of groups' mean differences.

    Of ranks, not of means: it asks whether most groups differ one way, whatever a few of them do.

    Args:
        differences: ``(n,)``; NaN is no pair and is left out.
        groups: ``(n,)``; each example when omitted.
    """
    values = np.asarray(differences, float)
    kept = ~np.isnan(values)
    values = values[kept]
    if not len(values):
        return math.nan
    if groups is not None:
        owner = np.unique(np.asarray(groups)[kept], return_inverse=True)[1]
        values = np.bincount(owner, values) / np.bincount(owner)
    if not values.any():
        return 1.0
    with warnings.catch_warnings():
        # Exact p-values turn into the normal approximation where there are ties or zeros.
        warnings.simplefilter("ignore", UserWarning)
        return float(stats.wilcoxon(values).pvalue)


def holm(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values that may be read together: no false one with probability ``1 - level``.

    The i-th smallest of m is multiplied by ``m - i`` (from zero) and is at least the one before it.
    NaN, a test that could not be made, stays NaN and does not count.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    values = np.asarray(p, float)
    if np.any((values < 0) | (values > 1)):
        raise ValueError("p-values must be in [0, 1]")
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    scaled = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def _columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.asarray(values, float)
    if array.ndim not in (1, 2):
        raise ValueError(f"values must be (n,) or (n, columns), got {array.shape}")
    return array[:, None] if array.ndim == 1 else array
