"""What adds up: the part of a logit that lies in pixels, and what lies elsewhere."""

import math

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value

GROUP = "ledger"
PARTS = {"pixel": ("pixels",), "position": ("position", "token"), "bias": ("bias",)}
"""Words in the names of constants, by the share that they count to."""


def ledger(subject: Subject) -> list[Value]:
    """Completeness, and shares of the absolute sums of pixels and constants, of the prediction."""
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle explains no logit")
    if subject.method.unit == "none":
        return undefined(GROUP, METRICS[GROUP], "the method has no unit, so nothing adds up")
    gaps: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in (*PARTS, "other")}
    for each in subject.attributions(subject.test.images, subject.predicted()):
        gap = each.completeness_gap
        assert gap is not None  # it has a unit
        gaps += (gap / each.logit.abs()).tolist()
        amounts = {"pixels": each.maps.double().sum((1, 2)).abs().cpu().numpy()}
        amounts |= {
            name: each.double().abs().cpu().numpy() for name, each in each.constants.items()
        }
        for name, share in _shares(amounts).items():
            shares[name] += share.tolist()
    values = list(per_example(GROUP, "completeness_gap", gaps, subject.test))
    for name, found in shares.items():
        why = "" if np.isfinite(found).all() else "all parts are zero"
        values += per_example(GROUP, f"{name}_share", found, subject.test, why)
    return values


def _shares(amounts: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    total = np.sum(list(amounts.values()), axis=0)
    total[total == 0] = math.nan
    parts = {name: np.zeros(len(total)) for name in (*PARTS, "other")}
    for name, amount in amounts.items():
        owner = next(
            (part for part, words in PARTS.items() if any(word in name for word in words)), "other"
        )
        parts[owner] += amount / total
    return parts
