"""Proportional hazards: one number of risk, trained by the partial likelihood."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from pathology.tasks.outcomes.outcome import Outcome, concordance, precise

Ties = Literal["efron", "breslow"]


class Cox(Outcome):
    """The logarithm of a bag's hazard relative to others' (Cox, JRSS B 34, 1972).

    The likelihood is partial over the batch: an event is compared with the batch's bags that are
    still at risk, on all devices. A batch without events teaches nothing and costs nothing.

    Args:
        ties: what becomes of events at one time. ``efron`` (JASA 72, 1977) averages over the orders
            they may have had; ``breslow`` (Biometrics 30, 1974) leaves all of them at risk.

    Raises:
        ValueError: no such way.
    """

    targets = ("time", "event")
    metric = "c_index"
    whole_batch = True
    outputs = 1

    def __init__(self, ties: Ties = "efron") -> None:
        super().__init__()
        if ties not in ("efron", "breslow"):
            raise ValueError(f"ties must be efron or breslow, got {ties!r}")
        self.ties = ties

    def loss(self, outputs: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Negative log partial likelihood per event."""
        risk = precise(outputs)[:, 0]
        time, event = truth["time"], truth["event"] > 0
        if not event.any():
            return risk.sum() * 0.0  # depends on all weights, as other processes expect
        # A row per event, a column per bag.
        at_risk = time[None] >= time[event][:, None]
        total = risk[None].masked_fill(~at_risk, -torch.inf).logsumexp(1)
        if self.ties == "efron":
            tied = (time[event][:, None] == time[event][None]).to(risk.dtype)
            earlier = tied.tril(-1).sum(1) / tied.sum(1)
            events = risk[event][None].masked_fill(tied == 0, -torch.inf).logsumexp(1)
            total = total + torch.log1p(-earlier * (events - total).exp())
        return (total - risk[event]).mean()

    def scores(self, logits: Tensor) -> Tensor:
        return logits[:, 0]

    def measure(self, logits: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
        return {"c_index": concordance(self.scores(logits), truth)}

    def meaning(self, target: int) -> str:
        self._check_target(target)
        return "logarithm of the hazard"
