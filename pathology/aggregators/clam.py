"""An attention per class, and a loss that makes it part tiles (after CLAM)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pathology.aggregators.abmil import embedding
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.gated_attention import GatedAttention
from pathology.aggregators.scorer import softmax_of_tiles
from pathology.aggregators.subsets import NormalisedSum


class ClassAttentionMIL(Aggregator):
    """Multi-branch CLAM: ``w_c . sum_i a_ic e_i`` with gated attention ``a_ic`` for each output.

    :meth:`auxiliary_loss` is the paper's instance-level clustering. Written from the paper; simpler
    than it in that a bag of fewer than ``2 * clustered`` tiles clusters half of its tiles at either
    end, and that outputs need not exclude each other: an output that is not the slide's has its
    most attended tiles told to be negative, as the paper does for exclusive classes.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of an embedded tile.
        attention_hidden: hidden size of the attention.
        clustered: B, tiles at either end of the attention that are clustered.
        auxiliary_weight: of the clustering beside a bag loss of weight 1; the paper's 0.3 to 0.7.
            At 0 there are no classifiers of tiles.
        drop: dropout of embedded tiles, while training.

    Raises:
        ValueError: ``clustered`` is below 1, or the weight negative.

    Source:
        Lu et al., Nature Biomedical Engineering 2021 (arXiv:2004.09666), methods.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        hidden: int = 256,
        attention_hidden: int = 128,
        clustered: int = 8,
        auxiliary_weight: float = 0.3 / 0.7,
        drop: float = 0.0,
    ) -> None:
        super().__init__(in_features, outputs)
        if clustered < 1 or auxiliary_weight < 0:
            raise ValueError(
                "clustered must be at least 1 and auxiliary_weight at least 0,"
                f" got {clustered} and {auxiliary_weight}"
            )
        self.clustered = clustered
        self.auxiliary_weight = auxiliary_weight
        self.embed = embedding(in_features, hidden, drop)
        self.scores = GatedAttention(hidden, attention_hidden, outputs)
        self.weight = nn.Parameter(nn.Linear(hidden, outputs).weight.detach())
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.clusters = nn.Linear(hidden, 2 * outputs) if auxiliary_weight else None

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        embedded = self.embed(features)
        weights = softmax_of_tiles(self.scores(embedded), present).to(embedded.dtype)
        pooled = weights.mT @ embedded
        return (pooled * self.weight).sum(-1) + self.bias

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(bags, tiles)``, that of the output with the largest logit; sums to 1 over a bag."""
        features = self.checked(features, present)
        weights = softmax_of_tiles(self.scores(self.embed(features)), present)
        predicted = self(features, present).argmax(-1)
        return weights[torch.arange(len(features), device=features.device), :, predicted]

    def subsets(self, features: Tensor, target: int) -> NormalisedSum:
        embedded: Tensor = self.embed(features)
        scores = self.scores(embedded)[:, target].double()
        values = (embedded.double() @ self.weight[target].double())[:, None]
        finish, constant = self.finish(target), self.bias.detach()[target].double()
        return NormalisedSum(values, scores, lambda sums: finish(sums + constant))

    def auxiliary_loss(self, features: Tensor, present: Tensor | None, label: Tensor) -> Tensor:
        """Instance-level clustering, to be added to the bag loss; its weight is in it.

        Per output, an own two-class classifier of tiles has to find the most attended tiles of the
        slide's output positive and the least attended ones negative, and the most attended ones of
        other outputs negative. The attention chooses tiles and gets no gradient from it.

        Args:
            features: ``(bags, tiles, in_features)``.
            present: ``(bags, tiles)`` bool; all when None.
            label: ``(bags,)`` output indices, or ``(bags, outputs)`` of 0 and 1.

        Returns:
            A scalar: mean over bags and outputs. 0 for bags of fewer than two tiles.
        """
        features = self.checked(features, present)
        if self.clusters is None:
            return features.new_zeros(())
        if label.ndim == 1:
            label = F.one_hot(label.long(), self.outputs)
        is_label = (label > 0.5)[:, None, :]
        embedded = self.embed(features)
        if present is None:
            present = torch.ones_like(features[..., 0], dtype=torch.bool)
        with torch.no_grad():
            scores = self.scores(embedded).masked_fill(~present[..., None], -torch.inf)
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        count = present.sum(1)[:, None, None]
        taken = (count // 2).clamp_max(self.clustered)
        top = rank < taken
        bottom = (rank >= count - taken) & (rank < count)
        chosen = top | (bottom & is_label)
        target = (top & is_label).long()
        loss = smooth_svm(self.clusters(embedded).unflatten(-1, (self.outputs, 2)), target)
        per_output = (loss * chosen).sum(1) / chosen.sum(1).clamp_min(1)
        return self.auxiliary_weight * per_output.mean()


def smooth_svm(scores: Tensor, target: Tensor) -> Tensor:
    """Smooth top-1 support vector loss, margin and temperature 1.

    ``log sum_j exp(s_j - s_y + [j != y])``.

    Args:
        scores: ``(..., classes)``.
        target: ``(...)`` class indices ``y``.

    Returns:
        ``(...)``.

    Source:
        Berrada, Zisserman and Kumar, ICLR 2018 (arXiv:1802.07595).
    """
    margin = 1 - F.one_hot(target, scores.shape[-1]).to(scores.dtype)
    right = scores.gather(-1, target[..., None])
    return torch.logsumexp(scores - right + margin, -1)
