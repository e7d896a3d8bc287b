"""Survival in discrete time: the hazard of each of a few intervals."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pathology.errors import ManifestError
from pathology.tasks.outcomes.outcome import Outcome, concordance, precise


class Hazard(Outcome):
    """A logit per interval of time: of the event happening there, given that it has not before.

    Intervals have equally many of the training part's events; they are kept with the weights. The
    loss is the likelihood of Gensheimer and Narasimhan (PeerJ 7:e6257, 2019, eq. 3): an event in
    interval k was survived up to there and then not, what was censored in it was survived up to
    there (of the interval itself it says nothing). The last interval has no end.

    Args:
        intervals: how many.

    Raises:
        ValueError: fewer than two.
    """

    targets = ("time", "event")
    metric = "c_index"
    cuts: Tensor

    def __init__(self, intervals: int = 4) -> None:
        super().__init__()
        if intervals < 2:
            raise ValueError(f"intervals must be at least 2, got {intervals}")
        self.outputs = intervals
        # Double: a time on a cut must fall on the same side as when it was counted.
        self.register_buffer("cuts", torch.full((intervals - 1,), torch.nan, dtype=torch.float64))

    def fit(self, truth: pd.DataFrame) -> None:
        """Cut time into intervals by quantiles of the training part's event times.

        Raises:
            ManifestError: there are too few different times of events.
        """
        times = truth["time"].to_numpy(np.float64)[truth["event"].to_numpy() > 0]
        count = self.outputs
        different = len(np.unique(times))
        cuts = np.quantile(times, np.arange(1, count) / count) if different >= count else times[:0]
        # Every interval needs an event, or its hazard is never seen.
        seen = np.bincount(np.searchsorted(cuts, times, "right"), minlength=count)
        if not len(cuts) or not seen.all():
            raise ManifestError(
                f"training has {len(times)} events at {different} times, which do not fill"
                f" {count} intervals; give fewer intervals, or outcome cox"
            )
        self.cuts.copy_(torch.from_numpy(cuts))

    def interval(self, time: Tensor) -> Tensor:
        """Which interval a time ``(bags,)`` is in; one begins with its cut."""
        if self.cuts.isnan().any():
            raise ValueError("intervals are not known yet: fit them to the training part first")
        return torch.searchsorted(self.cuts, time.to(self.cuts.dtype).contiguous(), right=True)

    def loss(self, outputs: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Negative log likelihood per bag."""
        outputs = precise(outputs)
        place = self.interval(truth["time"])[:, None]
        steps = torch.arange(self.outputs, device=outputs.device)[None]
        died = (steps == place) & (truth["event"] > 0)[:, None]
        known = (steps < place) | died
        losses = F.binary_cross_entropy_with_logits(
            outputs, died.to(outputs.dtype), reduction="none"
        )
        return (losses * known).sum(1).mean()

    def survival(self, logits: Tensor) -> Tensor:
        """Probability to be alive at the end of each interval, ``(bags, intervals)``."""
        return F.logsigmoid(-logits).cumsum(1).exp()

    def scores(self, logits: Tensor) -> Tensor:
        """Risk ``(bags,)``: minus the number of intervals that a bag is expected to survive."""
        return -self.survival(logits).sum(1)

    def measure(self, logits: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
        return {"c_index": concordance(self.scores(logits), truth)}

    def meaning(self, target: int) -> str:
        self._check_target(target)
        begin = 0.0 if target == 0 else float(self.cuts[target - 1])
        end = "" if target == self.outputs - 1 else f" to {float(self.cuts[target]):g}"
        return f"logit of the hazard from time {begin:g}{end}"
