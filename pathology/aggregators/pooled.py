"""Attention first, B-cos layers after: tiles meet before they are judged.

Each tile becomes ``e_i = V(h_i) h_i`` by B-cos layers of its own. Then ``z = sum_i a_i e_i`` and
``evidence_c = W_c(z) z``, so a tile's contribution is ``a_i W_c(z) e_i``: all tiles share the
matrix W, which depends on the whole bag.

Shapes: B bags, N tiles, D features, E of an embedded tile, C outputs, K branches of attention.
"""

import copy

import torch
from torch import Tensor, nn

from bcos_vit.layers import BcosLayerNorm, held
from pathology.aggregators.exact import ExactAggregator, bcos_layers, evidence_layers
from pathology.aggregators.scorer import GatedScorer, softmax_of_tiles
from pathology.aggregators.subsets import NormalisedSum, Subsets


class BcosPooled(ExactAggregator):
    """The attention-weighted mean of embedded tiles, through B-cos layers.

    It is to attention MIL what B-cos networks are to others. Without layers before the mean, what
    is not linear in features cannot be told of a single tile.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of all layers but the last.
        layers: how many of those follow the mean.
        tile_layers: how many come before it.
        attention_hidden: size of the scorer.
        per_class: attention of its own for each output.
        b: exponent of every B-cos layer.
        max_out: linear units behind each B-cos output.
        drop: dropout before each layer, while training.
        logit_bias, temperature: as in :class:`ExactAggregator`.

    Raises:
        ValueError: ``layers`` or ``tile_layers`` below 0, ``hidden`` below 1.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        hidden: int = 256,
        layers: int = 0,
        tile_layers: int = 1,
        attention_hidden: int = 128,
        per_class: bool = False,
        b: float = 2.0,
        max_out: int = 2,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_features, outputs, logit_bias=logit_bias, temperature=temperature)
        if tile_layers < 0:
            raise ValueError(f"tile_layers must be at least 0, got {tile_layers}")
        widths = [hidden] * tile_layers
        size = hidden if tile_layers else in_features
        self.tile = nn.Sequential(
            *bcos_layers(in_features, widths, b=b, max_out=max_out, drop=drop), BcosLayerNorm(size)
        )
        self.scorer = GatedScorer(in_features, outputs if per_class else 1, attention_hidden)
        self.bag = evidence_layers(
            size, outputs, hidden=hidden, layers=layers, b=b, max_out=max_out, drop=drop,
            pooled=True,
        )  # fmt: skip

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        weights = softmax_of_tiles(self.scorer(features), present)
        embedded = self.tile(features)
        pooled = held(weights).to(embedded.dtype).transpose(1, 2) @ embedded  # B K E
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
        embedded: Tensor = self.tile(features)
        bag, to_logits = copy.deepcopy(self.bag).double(), self.finish(target)

        @torch.no_grad()
        def finish(pooled: Tensor) -> Tensor:
            with torch.autocast(pooled.device.type, enabled=False):
                return to_logits(bag(pooled)[:, target, None])

        return NormalisedSum(embedded.double(), scores[:, branch].double(), finish)
