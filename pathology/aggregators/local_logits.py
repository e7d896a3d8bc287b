"""Aggregators that pool local logits: B-cos layers give each tile its evidence, a rule weighs it.

``evidence_c = sum_i w_ic l_ic`` with ``l_ic`` the local logit of tile i for output c and ``w_ic``
held while explaining, so a tile's contribution is ``w_ic l_ic``.
"""

from torch import Tensor

from bcos_vit.layers import held
from pathology.aggregators.exact import ExactAggregator, evidence_layers


class LocalLogits(ExactAggregator):
    """The sum of local logits under weights that a sub-class gives by :meth:`weights`.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of the layers before the one that gives local logits.
        layers: how many those are.
        b, max_out: of every B-cos layer.
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
        max_out: int = 1,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_features, outputs, logit_bias=logit_bias, temperature=temperature)
        self.tile = evidence_layers(
            in_features, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop
        )

    def evidence(
        self, features: Tensor, present: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        local = self.tile(features)
        weights = held(self.weights(features, local, present))
        return (weights.to(local.dtype) * local).sum(1)

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        """What each local logit is multiplied by.

        Args:
            features: ``(B, N, D)``.
            local: ``(B, N, C)`` local logits.
            present: ``(B, N)`` bool; all when None.

        Returns:
            ``(B, N, C)`` or ``(B, N, 1)``, 0 for absent tiles.
        """
        raise NotImplementedError


def tile_counts(features: Tensor, present: Tensor | None) -> Tensor:
    """Tiles of each bag, at least 1, ``(B,)``."""
    if present is None:
        return features.new_full((len(features),), max(1, features.shape[1]))
    return present.sum(1).clamp_min(1).to(features.dtype)


class BcosMean(LocalLogits):
    """The mean of local logits."""

    def weights(self, features: Tensor, local: Tensor, present: Tensor | None) -> Tensor:
        count = tile_counts(features, present)[:, None, None]
        if present is None:
            return (1 / count).expand(-1, local.shape[1], 1)
        return present[..., None] / count
