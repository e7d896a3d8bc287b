"""AUROC and average precision of weighted examples, sorted once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Areas(NamedTuple):
    """Areas under two curves; NaN without a positive or without a negative."""

    auroc: float
    auprc: float


class Ranking:
    """One class against the rest, ready to be measured under any weights.

    AUROC is the weighted share of pairs (positive, negative) in the right order, ties half
    (Hanley and McNeil, Radiology 1982). AUPRC is average precision: precision at each distinct
    score weighted by the recall gained there, without interpolation.

    Args:
        scores: ``(n,)``.
        positive: ``(n,)`` which examples are of the class.
    """

    def __init__(self, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        is_first = np.append(True, ordered[1:] != ordered[:-1])
        starts = np.flatnonzero(is_first)
        run = np.cumsum(is_first) - 1
        ends = np.append(starts[1:], len(scores))
        self.at = np.flatnonzero(positive[self.order])
        self.positive = self.order[self.at]
        self.below, self.upto = starts[run[self.at]], ends[run[self.at]]
        self.hits_below = np.searchsorted(self.at, self.below)
        self.hits_upto = np.searchsorted(self.at, self.upto)

    def __call__(self, weights: NDArray[np.float64]) -> Areas:
        """Both areas with each example counted ``weights (n,)`` times."""
        chosen = weights[self.positive]
        total, of_positive = weights.sum(), chosen.sum()
        of_negative = total - of_positive
        if of_positive <= 0 or of_negative <= 0:
            return Areas(np.nan, np.nan)
        # How much lies below each place, of all and of the positives.
        everything = np.empty(len(weights) + 1)
        everything[0] = 0
        np.cumsum(weights[self.order], out=everything[1:])
        counted = np.empty(len(chosen) + 1)
        counted[0] = 0
        np.cumsum(chosen, out=counted[1:])
        hits_below, hits_upto = counted[self.hits_below], counted[self.hits_upto]
        all_below = everything[self.below]
        negatives_below = all_below - hits_below
        negatives_upto = everything[self.upto] - hits_upto
        auroc = chosen @ (negatives_below + negatives_upto) / (2 * of_positive * of_negative)
        at_least = total - all_below  # what has this score or a higher one
        hits = of_positive - hits_below
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(at_least > 0, hits / at_least, 0.0)
        return Areas(float(auroc), float(chosen @ precision / of_positive))


def curves(
    scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What is found at each distinct score, from the highest down.

    Args:
        scores: ``(n,)``.
        positive: ``(n,)``.

    Returns:
        Scores, true positives and false positives among examples of at least that score.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hit = scores[order], positive[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true = np.cumsum(hit)[last].astype(np.float64)
    return ordered[last], true, (last + 1) - true
