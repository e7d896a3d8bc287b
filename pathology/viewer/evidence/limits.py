"""Where colours saturate: one number a kind of map, for all slides, classes and runs.

Slides compare only when a colour means the same on each of them.
"""

import math
import statistics
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pathology.errors import PathologyError
from pathology.maps.stored_map import StoredMap
from pathology.viewer.evidence.maps import MAP, OneMap, recorded_range

if TYPE_CHECKING:
    from pathology.explain.results.stored import StoredExplanation
    from pathology.viewer.library.entries import EvidenceEntry

MOST_READ = 400
"""Explanations that are asked; of more, as many all over the list."""
OVERVIEW_PX = 1024
"""Longest side of the level that colours are estimated from where a record does not tell."""


class SharedLimits:
    """The median of what explanations have by themselves, rounded down to 1, 2 or 5 times 10^n.

    With the largest, one strong slide would leave all others pale; what lies beyond the median is
    counted in the legend.

    Args:
        evidence: all explanations.
    """

    def __init__(self, evidence: Sequence["EvidenceEntry"]) -> None:
        every = max(1, math.ceil(len(evidence) / MOST_READ))
        self._asked = evidence[::every]
        self._lock = threading.Lock()
        self._limits: dict[str, float] | None = None

    def get(self) -> dict[str, float]:
        """By a map's name, in the unit shown; found at the first call, which takes a second."""
        with self._lock:
            if self._limits is None:
                self._limits = self._find()
            return self._limits

    def _find(self) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for entry in self._asked:
            try:
                own = colour_limits(entry.explanation)
            except PathologyError:
                continue  # its own route says so
            for name, limit in own.items():
                found.setdefault(name, []).append(limit)
        return {name: round_down(_median(limits)) for name, limits in found.items()}


def colour_limits(explanation: "StoredExplanation") -> dict[str, float]:
    """Where colours of each map should saturate, by its name, in the unit shown; quick.

    Where the record does not tell, it is estimated from a coarse level. A map of zeros alone says
    nothing of it, and is left out; so is one that cannot be read, an error when it is looked at.
    """
    limits = {}
    for name in explanation.maps:
        recorded = recorded_range(explanation.record, name)
        if recorded is not None:
            limits[name] = recorded.limit
            continue
        with suppress(PathologyError):
            stored = StoredMap(explanation.folder / f"{name}{MAP}")
            limits[name] = _estimated_limit(OneMap(name, stored, explanation.record))
    return {name: limit for name, limit in limits.items() if limit}


def _estimated_limit(each: OneMap) -> float:
    small = (k for k, shape in enumerate(each.shapes) if max(shape) <= OVERVIEW_PX)
    level = next(small, len(each.shapes) - 1)
    limit, _ = each.stored.value_range(level)
    return limit / each.divisor(level)


def _median(limits: Sequence[float]) -> float:
    """Of those that say something: a map of zeros alone does not."""
    told = [limit for limit in limits if math.isfinite(limit) and limit > 0]
    return statistics.median(told) if told else 0.0


def round_down(value: float) -> float:
    """The last of 1, 2, 5, 10, 20, ... not above ``value``; 1 where that is no such number."""
    if not (math.isfinite(value) and value > 0):
        return 1.0
    power = math.floor(math.log10(value))
    # As decimal texts: 10.0**-3 times 5 is not 0.005. One power less, for what log10 rounds.
    steps = [float(f"{digit}e{exponent}") for exponent in (power, power - 1) for digit in (5, 2, 1)]
    return next(step for step in steps if step <= value)
