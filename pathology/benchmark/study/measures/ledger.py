"""What adds up: the part of a logit that lies in pixels, and what lies elsewhere.

What neither pixels nor named constants account for is a part, too: of integrated gradients the
baseline's logit, of input times gradient all that it leaves. Otherwise a method that names no
constant would have all of the logit in pixels.
"""

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.map_quality.compared import share as share_of

GROUP = "ledger"
PARTS = {"pixel": ("pixels",), "position": ("position", "token"), "bias": ("bias",)}
"""Words in the names of constants, by the share that they count to."""


def ledger(subject: Subject) -> list[Value]:
    """Completeness, and shares of the absolute sums of the parts of the predicted logit."""
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle explains no logit")
    if subject.method.unit == "none":
        return undefined(GROUP, METRICS[GROUP], "the method has no unit, so nothing adds up")
    gaps: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in (*PARTS, "other")}
    for each in subject.attributions(subject.test.images, subject.predicted()):
        gap = each.completeness_gap
        assert gap is not None  # it has a unit
        logit = each.logit.cpu().numpy()
        gaps += share_of(gap.cpu().numpy(), np.abs(logit)).tolist()
        parts = {"pixels": each.maps.double().sum((1, 2)).cpu().numpy()}
        parts |= {name: part.double().cpu().numpy() for name, part in each.constants.items()}
        parts["rest"] = logit - np.sum(list(parts.values()), axis=0)
        for name, share in _shares(parts).items():
            shares[name] += share.tolist()
    values = list(per_example(GROUP, "completeness_gap", gaps, subject.test, "the logit is zero"))
    for name, found in shares.items():
        values += per_example(GROUP, f"{name}_share", found, subject.test, "all parts are zero")
    return values


def _shares(parts: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    total = np.sum(np.abs(list(parts.values())), axis=0)
    shares = {name: np.zeros(len(total)) for name in (*PARTS, "other")}
    for name, part in parts.items():
        owner = next(
            (owner for owner, words in PARTS.items() if any(word in name for word in words)),
            "other",
        )
        shares[owner] += share_of(np.abs(part), total)
    return shares
