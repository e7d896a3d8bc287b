"""Additive multiple-instance learning: a classifier of each weighted tile, then a sum."""

import torch
from torch import Tensor, nn

from pathology.aggregators.abmil import embedding, two_layers
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.gated_attention import GatedAttention
from pathology.aggregators.scorer import softmax_of_tiles
from pathology.aggregators.subsets import ReweightedTerms


class AdditiveMIL(Aggregator):
    """``sum_i classifier(a_i e_i)`` of embedded tiles ``e_i`` under gated attention ``a_i``.

    A tile's contribution is its term of the sum, as the paper defines it. It is complete down to
    tiles and no further: the classifier has biases, which are part of every tile's term, and
    activations, so there is no ``g_i . h_i``; hence ``exact`` is False.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of an embedded tile and of the classifier's hidden layer.
        attention_hidden: hidden size of the attention.
        drop: dropout of embedded tiles, while training.

    Source:
        Javed et al., NeurIPS 2022 (arXiv:2206.01794), section 3.2.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        hidden: int = 256,
        attention_hidden: int = 128,
        drop: float = 0.0,
    ) -> None:
        super().__init__(in_features, outputs)
        self.embed = embedding(in_features, hidden, drop)
        self.scores = GatedAttention(hidden, attention_hidden)
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        terms = self.terms(features, present)
        return terms.sum(1, dtype=torch.promote_types(terms.dtype, torch.float32))

    def terms(self, features: Tensor, present: Tensor | None) -> Tensor:
        """``(bags, tiles, outputs)``, 0 for absent tiles."""
        embedded = self.embed(features)
        weights = softmax_of_tiles(self.scores(embedded), present).to(embedded.dtype)
        terms: Tensor = self.classifier(weights * embedded)
        return terms if present is None else terms.masked_fill(~present[..., None], 0)

    def tile_contributions(
        self, features: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The terms of the sum, and no constant but a calibration's."""
        terms = self.terms(self.checked(features, present), present)
        if self.logits is None:
            return terms, terms.new_zeros(self.outputs)
        return terms / self.logits.temperature, self.logits.bias

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(bags, tiles)``, sums to 1 over a bag."""
        features = self.checked(features, present)
        return softmax_of_tiles(self.scores(self.embed(features)), present)[..., 0]

    def subsets(self, features: Tensor, target: int) -> ReweightedTerms:
        """Of tiles that are embedded once; the classifier's first layer is linear in a weight."""
        embedded: Tensor = self.embed(features)
        first, behind = two_layers(self.classifier, target)
        inner = embedded.detach().double() @ first
        scores = self.scores(embedded)[:, 0].double()
        return ReweightedTerms(
            lambda weights: behind(weights[..., None] * inner), scores, inner.shape[1],
            self.finish(target),
        )  # fmt: skip
