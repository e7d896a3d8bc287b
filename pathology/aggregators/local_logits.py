"""Aggregators that pool local logits: B-cos layers give each tile its evidence, a rule weighs it.

``evidence_c = sum_i w_ic l_ic`` with ``l_ic`` the local logit of tile i for output c and ``w_ic``
held while explaining, so a tile's contribution is ``w_ic l_ic``.

Shapes: B bags, N tiles, D features, C outputs.
"""

import math

import torch
from torch import Tensor

from bcos_vit.layers import held
from pathology.aggregators.exact import ExactAggregator, evidence_layers
from pathology.aggregators.scorer import GatedScorer, softmax_of_tiles
from pathology.aggregators.subsets import NormalisedSum, Subsets, TopMean, WeightedSum


class LocalLogits(ExactAggregator):
    """The sum of local logits under weights that a sub-class gives by :meth:`weights`.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of the layers before the one that gives local logits.
        layers: how many those are.
        b: exponent of every B-cos layer.
        max_out: linear units behind each B-cos output.
        drop: dropout before each layer, while training.
        logit_bias, temperature: as in :class:`ExactAggregator`.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        b: float = 2.0,
        max_out: int = 2,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_features, outputs, logit_bias=logit_bias, temperature=temperature)
        self.tile = evidence_layers(
            in_features, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop,
            pooled=True,
        )  # fmt: skip

    def local_logits(self, features: Tensor) -> Tensor:
        """Evidence of each tile by itself: ``(B, N, D)`` to ``(B, N, C)``, float32 or wider."""
        local: Tensor = self.tile(features)
        return local.to(torch.promote_types(local.dtype, torch.float32))

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        local = self.local_logits(features)
        return (held(self.weights(features, local, present)) * local).sum(1)

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        """What each local logit is multiplied by.

        Args:
            features: ``(B, N, D)``.
            local: ``(B, N, C)`` local logits.
            present: ``(B, N)`` bool; all when None.

        Returns:
            ``(B, N, C)`` or ``(B, N, 1)``, of ``local``'s dtype, 0 for absent tiles.
        """
        raise NotImplementedError

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor | None:
        """Weights, averaged over outputs where these have their own."""
        features = self.checked(features, present)
        return self.weights(features, self.local_logits(features), present).mean(-1)


class BcosMean(LocalLogits):
    """The mean of local logits."""

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        bags, tiles, _ = local.shape
        if present is None:
            return local.new_full((bags, tiles, 1), 1 / max(1, tiles))
        return present[..., None] / _count(present)[:, None, None].to(local.dtype)

    def attention(self, features: Tensor, present: Tensor | None = None) -> None:
        """Nothing: all tiles weigh the same."""

    def subsets(self, features: Tensor, target: int) -> Subsets:
        local = self.local_logits(features[None])[0, :, target, None].double()
        return NormalisedSum(local, torch.zeros_like(local[:, 0]), self.finish(target))


class BcosTop(LocalLogits):
    """The mean of each output's highest local logits.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        k: how many, of all where there are fewer.
        share: of a bag's tiles, in [0, 1], where that is more than ``k``.
        max_out: one unit by default: the highest of many tiles is a maximum as it is.
        **options: of :class:`LocalLogits`.

    Raises:
        ValueError: ``k`` below 1 or ``share`` outside [0, 1].
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        k: int = 8,
        share: float = 0.0,
        hidden: int = 256,
        layers: int = 1,
        b: float = 2.0,
        max_out: int = 1,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(
            in_features, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop,
            logit_bias=logit_bias, temperature=temperature,
        )  # fmt: skip
        if k < 1 or not 0 <= share <= 1:
            raise ValueError(f"k must be at least 1 and share in [0, 1], got {k} and {share}")
        self.k = k
        self.share = share

    def chosen(self, tiles: int) -> int:
        """How many of so many tiles count, at least 1."""
        # 0.1 of 30 tiles are 3, not the 3.0000000000000004 that floating point makes of them.
        return max(1, min(tiles, max(self.k, math.ceil(self.share * tiles - 1e-9))))

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        bags, tiles, _ = local.shape
        numbers = [tiles] * bags if present is None else present.sum(1).tolist()
        count = torch.tensor([self.chosen(int(n)) for n in numbers], device=local.device)
        ranked = local.detach()
        if present is not None:
            ranked = ranked.masked_fill(~present[..., None], -torch.inf)
        order = ranked.argsort(dim=1, descending=True, stable=True)
        first = torch.arange(tiles, device=local.device)[:, None] < count[:, None, None]
        weights = torch.zeros_like(ranked)
        weights.scatter_(1, order, (first.to(local.dtype) / count[:, None, None]).expand_as(order))
        return weights if present is None else weights * present[..., None]

    def subsets(self, features: Tensor, target: int) -> Subsets:
        local = self.local_logits(features[None])[0, :, target].double()
        return TopMean(local, self.chosen, self.finish(target))


class BcosAttended(LocalLogits):
    """Local logits under attention: softmax of :class:`GatedScorer`'s scores over the bag.

    The effect of removing a tile is not its contribution, since the others then weigh more.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        attention_hidden: size of the scorer.
        per_class: attention of its own for each output.
        **options: of :class:`LocalLogits`.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        attention_hidden: int = 128,
        per_class: bool = False,
        hidden: int = 256,
        layers: int = 1,
        b: float = 2.0,
        max_out: int = 2,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(
            in_features, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop,
            logit_bias=logit_bias, temperature=temperature,
        )  # fmt: skip
        self.scorer = GatedScorer(in_features, outputs if per_class else 1, attention_hidden)

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        return softmax_of_tiles(self.scorer(features), present)

    def subsets(self, features: Tensor, target: int) -> Subsets:
        local = self.local_logits(features[None])[0, :, target, None].double()
        scores = _branch(self.scorer(features), target).double()
        return NormalisedSum(local, scores, self.finish(target))


class BcosGatedSum(LocalLogits):
    """Local logits behind gates: ``gain * sum_i sigmoid(s_i) l_i / sqrt(expected_tiles)``.

    Nothing depends on the bag as a whole, so a tile's contribution is the effect of removing it,
    and its Shapley value. The price: a bag of twice the tiles has twice the evidence. Gates start
    near ``1 / sqrt(expected_tiles)``, where the sum over so many tiles is their mean.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        expected_tiles: about as many tiles as bags have, at least 2. Stored with the weights.
        attention_hidden: size of the gates' scorer.
        per_class: gates of their own for each output.
        **options: of :class:`LocalLogits`.

    Raises:
        ValueError: ``expected_tiles`` is below 2.
    """

    scale: Tensor

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        expected_tiles: float = 1000.0,
        attention_hidden: int = 128,
        per_class: bool = False,
        hidden: int = 256,
        layers: int = 1,
        b: float = 2.0,
        max_out: int = 2,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(
            in_features, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop,
            logit_bias=logit_bias, temperature=temperature,
        )  # fmt: skip
        if not expected_tiles >= 2:
            raise ValueError(f"expected_tiles must be at least 2, got {expected_tiles}")
        scale = expected_tiles**-0.5
        branches = outputs if per_class else 1
        closed = math.log(scale / (1 - scale))
        self.scorer = GatedScorer(in_features, branches, attention_hidden, bias=closed)
        self.register_buffer("scale", torch.tensor(scale))

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        weights = self.gates(features) * self.scale
        return weights if present is None else weights * present[..., None]

    def gates(self, features: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., C)`` or ``(..., 1)``, in (0, 1)."""
        gates: Tensor = self.scorer(features).sigmoid()
        return gates

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Gates, averaged over outputs where these have their own; they have no sum to keep."""
        gates = self.gates(self.checked(features, present)).mean(-1)
        return gates if present is None else gates * present

    def subsets(self, features: Tensor, target: int) -> Subsets:
        local = self.local_logits(features[None])[0, :, target, None].double()
        weights = _branch(self.gates(features) * self.scale, target).double()
        return WeightedSum(local, weights, self.finish(target))


def _count(present: Tensor) -> Tensor:
    """Tiles of each bag, at least 1: ``(B, N)`` to ``(B,)``."""
    return present.sum(1).clamp_min(1)


def _branch(scores: Tensor, target: int) -> Tensor:
    """An output's own column, or the one for all: ``(N, K)`` to ``(N,)``."""
    return scores[:, target if scores.shape[1] > 1 else 0]
