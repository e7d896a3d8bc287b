"""Times of runs that take turns, so that a machine that slows down slows down all of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

LEAST_ROUNDS, MOST_ROUNDS = 3, 50
# Compilation, an optimiser's first step and memory's first use are over after that.
WARM_UP = 2

Run = Callable[[], object]


def seconds(run: Run, device: torch.device) -> float:
    """How long ``run`` takes until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def take_turns(runs: Sequence[Run], budget_s: float, device: torch.device) -> list[list[float]]:
    """Times of each run, in turn, for about ``budget_s`` after warm-up, or the least that will do.

    Args:
        runs: what takes turns, in this order.
        budget_s: seconds to spend; at least ``LEAST_ROUNDS`` and at most ``MOST_ROUNDS`` rounds.
        device: that the runs use.

    Returns:
        By run, its seconds in each round.
    """
    for _ in range(WARM_UP):
        for run in runs:
            run()
    times: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if done >= LEAST_ROUNDS and time.perf_counter() - start > budget_s:
            break
        for run, taken in zip(runs, times, strict=True):
            taken.append(seconds(run, device))
    return times


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median and the quartiles of ratios of neighbouring runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Ratio":
        """Of two runs that took turns."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)
