"""Attention first, B-cos layers after: tiles meet before they are judged.

``z = sum_i a_i h_i`` and ``evidence_c = W_c(z) z``, so a tile's contribution is
``a_i W_c(z) h_i``: all tiles share one matrix, which depends on the whole bag.

Shapes: B bags, N tiles, D features, C outputs, K branches of attention.
"""

import torch
from torch import Tensor

from bcos_vit.layers import BcosLayerNorm, held
from pathology.aggregators.exact import ExactAggregator, evidence_layers
from pathology.aggregators.scorer import GatedScorer, softmax_of_tiles
from pathology.aggregators.subsets import NormalisedSum, Subsets


class BcosPooled(ExactAggregator):
    """The attention-weighted mean of tiles, through B-cos layers.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of the layers before the last.
        layers: how many those are.
        attention_hidden: size of the scorer.
        per_class: attention of its own for each output.
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
        layers: int = 2,
        attention_hidden: int = 128,
        per_class: bool = False,
        b: float = 2.0,
        max_out: int = 1,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_features, outputs, logit_bias=logit_bias, temperature=temperature)
        self.norm = BcosLayerNorm(in_features)
        self.scorer = GatedScorer(in_features, outputs if per_class else 1, attention_hidden)
        self.bag = evidence_layers(
            in_features, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop
        )

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        weights = softmax_of_tiles(self.scorer(features), present)
        normed = self.norm(features)
        pooled = held(weights).to(normed.dtype).transpose(1, 2) @ normed  # B K D
        evidence: Tensor = self.bag(pooled)  # B K C
        if evidence.shape[1] == 1:
            return evidence[:, 0]
        return evidence.diagonal(dim1=1, dim2=2)

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Softmax over tiles, averaged over outputs where these have their own."""
        return softmax_of_tiles(self.scorer(self.checked(features, present)), present).mean(-1)

    def subsets(self, features: Tensor, target: int) -> Subsets:
        scores = self.scorer(features)
        branch = target if scores.shape[1] > 1 else 0
        normed: Tensor = self.norm(features)
        to_logits = self.finish(target)

        @torch.no_grad()
        def finish(pooled: Tensor) -> Tensor:
            with torch.autocast(pooled.device.type, enabled=False):
                evidence = self.bag(pooled.to(normed.dtype))[:, target, None]
            return to_logits(evidence.double())

        return NormalisedSum(normed.double(), scores[:, branch].double(), finish)
