"""Losses that suit B-cos logits."""

import torch.nn.functional as F
from torch import Tensor, nn


class OneHotBCE(nn.Module):
    """Binary cross-entropy of each logit against the one-hot label.

    It rewards evidence for the true class by itself, which keeps maps class-specific, where
    cross-entropy only rewards differences. Off-label targets are ``off_target``: the reference uses
    1 / classes, which is no floor but half the evidence when there are two classes, hence 0 here.

    Args:
        off_target: target of the other classes, in [0, 0.5).
    """

    def __init__(self, off_target: float = 0.0) -> None:
        super().__init__()
        if not 0 <= off_target < 0.5:
            raise ValueError(f"off_target must be in [0, 0.5), got {off_target}")
        self.off_target = off_target

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over images of the sum over classes.

        Args:
            logits: ``(batch, classes)``.
            labels: ``(batch,)`` class indices.
        """
        target = F.one_hot(labels, logits.shape[1]).to(logits.dtype).clamp_min(self.off_target)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
