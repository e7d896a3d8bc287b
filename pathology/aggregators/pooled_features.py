"""The simplest aggregators: mean or maximum of features, then a linear classifier.

Both are exact: a logit is the bias plus a sum over tiles.
"""

import torch
from torch import Tensor

from bcos_vit.layers import PlainLinear, held
from pathology.aggregators.aggregator import Aggregator


class PooledFeatures(Aggregator):
    """``W sum_i s_i * h_i + bias``, with shares ``s_i`` of features that a sub-class gives.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
    """

    exact = True
    dynamic_linear = True

    def __init__(self, in_features: int, outputs: int) -> None:
        super().__init__(in_features, outputs)
        self.classifier = PlainLinear(in_features, outputs, bias=True)

    def bag_logits(
        self, features: Tensor, present: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        logits: Tensor = self.classifier((held(self.shares(features, present)) * features).sum(1))
        return logits

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        """``(bags, tiles, in_features)`` or ``(bags, tiles, 1)``, 0 for absent tiles."""
        raise NotImplementedError


class MeanFeatures(PooledFeatures):
    """A linear classifier of the mean of features: what a bag says without any attention."""

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        if present is None:
            present = torch.ones_like(features[..., 0], dtype=torch.bool)
        there = present.to(features.dtype)
        return (there / there.sum(1, keepdim=True).clamp_min(1))[..., None]


class MaximumFeatures(PooledFeatures):
    """A linear classifier of the maximum of each feature over the bag.

    A feature's maximum belongs to the tile that has it, in equal parts if several do.
    """

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        with torch.no_grad():
            if present is None:
                present = torch.ones_like(features[..., 0], dtype=torch.bool)
            there = present[..., None]
            highest = features.masked_fill(~there, -torch.inf).amax(1, keepdim=True)
            has_it = (features == highest) & there
            return has_it.to(features.dtype) / has_it.sum(1, keepdim=True).clamp_min(1)

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(bags, tiles)``: the share of features of which a tile has the maximum."""
        return self.shares(self.checked(features, present), present).mean(-1)
