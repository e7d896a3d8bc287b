"""The simplest aggregators: mean or maximum of features, then a linear classifier.

Both are exact: a logit is the bias plus a sum over tiles.
"""

import torch
from torch import Tensor

from bcos_vit.layers import PlainLinear, held
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.subsets import NormalisedSum


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

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        logits: Tensor = self.classifier((held(self.shares(features, present)) * features).sum(1))
        return logits

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        """``(bags, tiles, in_features)`` or ``(bags, tiles, 1)``, 0 for absent tiles."""
        raise NotImplementedError

    def normalised_sum(self, features: Tensor, scores: Tensor, target: int) -> NormalisedSum:
        """Any of a bag's tiles where shares are softmax of scores.

        Args:
            features: ``(N, D)`` of the bag's tiles.
            scores: ``(N,)``.
            target: the output.
        """
        finish, bias = self.finish(target), self.classifier.bias
        constant = 0.0 if bias is None else bias.detach()[target].double()
        values = (features.double() @ self.classifier.weight[target].double())[:, None]
        return NormalisedSum(values, scores.double(), lambda sums: finish(sums + constant))


class MeanFeatures(PooledFeatures):
    """A linear classifier of the mean of features: what a bag says without any attention."""

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        if present is None:
            present = torch.ones_like(features[..., 0], dtype=torch.bool)
        # Half precision does not count to 5,000.
        there = present.to(torch.promote_types(features.dtype, torch.float32))
        return (there / there.sum(1, keepdim=True).clamp_min(1))[..., None].to(features.dtype)

    def subsets(self, features: Tensor, target: int) -> NormalisedSum:
        return self.normalised_sum(features, torch.zeros_like(features[:, 0]), target)


class MaximumFeatures(PooledFeatures):
    """A linear classifier of the maximum of each feature over the bag.

    A feature's maximum belongs to the tile that has it, in equal parts if several do.
    """

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        if not features.shape[1]:
            return torch.zeros_like(features)
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
