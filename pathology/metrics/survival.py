"""Concordance of risks with times to an event that not everybody lived to see."""

import numpy as np
from numpy.typing import NDArray

_PAIRS = 4_000_000  # pairs held at once


class Concordance:
    """Harrell's C-index under any weights: the share of comparable pairs in the right order.

    A pair is comparable when the one with the shorter time had the event; of equal times, when
    exactly one had it (who was censored then outlived the other). It is in the right order when
    the one with the shorter time has the higher risk; equal risks count half.

    Source: Harrell et al., Statistics in Medicine 15, 1996.

    Args:
        risk: ``(n,)``, higher means earlier.
        time: ``(n,)`` to the event, or until last seen.
        event: ``(n,)`` whether it was seen.
    """

    def __init__(
        self, risk: NDArray[np.float64], time: NDArray[np.float64], event: NDArray[np.bool_]
    ) -> None:
        self.risk, self.time, self.event = risk, time, event
        self.failed = np.flatnonzero(event)

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """``weights (draws, n)`` to ``(draws,)``; NaN where no pair is comparable."""
        right, comparable = np.zeros((2, len(weights)))
        block = max(1, _PAIRS // len(self.risk))
        for start in range(0, len(self.failed), block):
            chosen = self.failed[start : start + block]
            time, risk = self.time[chosen, None], self.risk[chosen, None]
            pairs = (time < self.time) | ((time == self.time) & ~self.event)
            order = np.where(risk > self.risk, 1.0, np.where(risk == self.risk, 0.5, 0.0))
            drawn = weights[:, chosen]
            right += np.einsum("di,di->d", drawn, weights @ (pairs * order).T)
            comparable += np.einsum("di,di->d", drawn, weights @ pairs.T.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            index: NDArray[np.float64] = right / comparable
        return index


def kaplan_meier(
    time: NDArray[np.float64], event: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share still free of the event, as steps.

    Source: Kaplan and Meier, JASA 53, 1958.

    Args:
        time: ``(n,)`` to the event, or until last seen.
        event: ``(n,)`` whether it was seen.

    Returns:
        Times ``(k + 1,)`` from 0 on and the share from each of them until the next.
    """
    times = np.unique(time[event])
    at_risk = (time[None] >= times[:, None]).sum(1)
    events = ((time[None] == times[:, None]) & event[None]).sum(1)
    shares = np.cumprod(1 - events / at_risk)
    return np.append(0.0, times), np.append(1.0, shares)
