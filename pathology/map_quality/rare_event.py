"""How probable something improbable is: plain Monte Carlo, and subset simulation.

A millionth is seen by plain sampling once in a million draws. Subset simulation (multilevel
splitting) comes down in steps: among draws it keeps the highest tenth, grows new draws from those
by a Markov chain that stays above their least, keeps the highest tenth of them, and so on; the
probability is the product of the shares kept. It is right in order of magnitude: a ten-thousandth
by 200 points per level scatters by its own size and comes out 40 % too high on average, by 1000
points by 0.4 of its size and 10 %.

Source: Au and Beck, "Estimation of small failure probabilities in high dimensions by subset
simulation", Probabilistic Engineering Mechanics 16 (2001); here on the uniform cube, where a
reflected step of any size is its own reverse.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Value = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From points ``(k, dimension)`` in [-1, 1] to values ``(k,)``; -inf for what must not be."""


@dataclass(frozen=True, slots=True)
class RareEvent:
    """The probability that a value reaches a threshold.

    Args:
        probability: estimated; NaN with a note where the estimate did not get there.
        low: of plain Monte Carlo, the 95 % interval (Clopper and Pearson); of subset simulation
            NaN.
        high: likewise; where subset simulation did not get there, what the probability is below,
            about.
        standard_error: over independent runs; NaN of one.
        evaluations: points looked at.
        note: why there is no estimate.
    """

    probability: float
    low: float
    high: float
    standard_error: float
    evaluations: int
    note: str = ""


def monte_carlo(
    value: Value,
    dimension: int,
    threshold: float,
    rng: np.random.Generator,
    *,
    samples: int = 1000,
    batch: int = 32,
) -> RareEvent:
    """Plain sampling, uniform in the cube.

    Args:
        value: of points.
        dimension: of the cube [-1, 1].
        threshold: that the value reaches.
        rng: of the points.
        samples: points.
        batch: points at a time.
    """
    hits = 0
    for start in range(0, samples, batch):
        points = _draw(rng, min(batch, samples - start), dimension)
        hits += int((value(points) >= threshold).sum())
    interval = binomtest(hits, samples).proportion_ci(0.95, "exact")
    share = hits / samples
    error = math.sqrt(share * (1 - share) / samples)
    return RareEvent(share, float(interval.low), float(interval.high), error, samples)


def subset_simulation(
    value: Value,
    dimension: int,
    threshold: float,
    rng: np.random.Generator,
    *,
    samples: int = 200,
    keep: float = 0.1,
    levels: int = 8,
    runs: int = 1,
) -> RareEvent:
    """Subset simulation; holds ``samples`` points in memory, and looks at a tenth of them at once.

    Args:
        value: of points.
        dimension: of the cube [-1, 1].
        threshold: that the value reaches.
        rng: of the points.
        samples: points per level.
        keep: share that survives a level.
        levels: at most; what is rarer than ``keep ** levels`` is not looked for.
        runs: independent ones, to average over and to have a standard error.

    Raises:
        ValueError: fewer than two survivors per level, or no run.
    """
    survivors = round(keep * samples)
    if survivors < 2 or not 0 < keep < 1 or runs < 1 or levels < 1:
        raise ValueError(
            "subset simulation needs two survivors per level, a level and a run, got"
            f" {samples} samples of which {keep:g} are kept, {levels} levels, {runs} runs"
        )
    found = [
        _run(value, dimension, threshold, rng, samples, survivors, levels) for _ in range(runs)
    ]
    evaluations = sum(looked for _, _, looked in found)
    missed = [bound for probability, bound, _ in found if math.isnan(probability)]
    if missed:
        note = f"not reached in {len(missed)} of {runs} runs"
        return RareEvent(math.nan, math.nan, max(missed), math.nan, evaluations, note)
    estimates = np.array([probability for probability, _, _ in found])
    error = float(estimates.std(ddof=1) / math.sqrt(runs)) if runs > 1 else math.nan
    return RareEvent(float(estimates.mean()), math.nan, math.nan, error, evaluations)


def _run(
    value: Value,
    dimension: int,
    threshold: float,
    rng: np.random.Generator,
    samples: int,
    survivors: int,
    levels: int,
) -> tuple[float, float, int]:
    """Estimate (NaN if missed), what it is below if missed, points looked at."""
    points = _draw(rng, samples, dimension)
    chunks = [slice(s, s + survivors) for s in range(0, samples, survivors)]
    values = np.concatenate([value(points[chunk]) for chunk in chunks])
    above, step, looked, floor = 1.0, 1.0, samples, -math.inf
    for level in range(levels):
        reached = float(np.sort(values)[-survivors])
        if reached >= threshold or level == levels - 1:
            break
        if level and reached <= floor:
            break  # a plateau: chains no longer rise
        kept = np.flatnonzero(values >= reached)
        above, floor = above * len(kept) / samples, reached
        kept = rng.permutation(kept)[:survivors]
        now, height = points[kept], values[kept]
        grown, heights, accepted, tried = [now], [height], 0, 0
        while len(grown) * survivors < samples:
            # Steps in all directions at once, scaled so that about half are taken.
            moved = _reflect(now + step * _draw(rng, survivors, dimension))
            lift = value(moved)
            take = lift >= floor
            now, height = np.where(take[:, None], moved, now), np.where(take, lift, height)
            grown.append(now)
            heights.append(height)
            accepted, tried = accepted + int(take.sum()), tried + survivors
            step = min(1.0, step * math.exp(0.5 * (take.mean() - 0.44)))
        points, values = np.concatenate(grown)[:samples], np.concatenate(heights)[:samples]
        looked += tried
    share = float((values >= threshold).mean())
    # None among so many: below three in so many, with 95 % confidence if they were independent.
    return (above * share if share else math.nan), above * 3 / samples, looked


def _draw(rng: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    return 2 * rng.random((count, dimension), dtype=np.float32) - 1


def _reflect(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Back into [-1, 1] at its walls, for steps of at most 2."""
    inside = np.where(points > 1, 2 - points, points)
    reflected: NDArray[np.float32] = np.where(inside < -1, -2 - inside, inside)
    return reflected
