"""Attention-based multiple-instance learning, with a classifier of two layers or a linear one."""

from collections.abc import Callable

from torch import Tensor, nn

from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.gated_attention import GatedAttention
from pathology.aggregators.pooled_features import PooledFeatures
from pathology.aggregators.scorer import GatedScorer, softmax_of_tiles
from pathology.aggregators.subsets import NormalisedSum


class AttentionMIL(Aggregator):
    """``classifier(sum_i a_i e_i)`` of embedded tiles ``e_i`` under gated attention ``a_i``.

    The embedding, a linear layer and ReLU, and a classifier of two layers are what features of a
    frozen encoder are usually given in this method. Nothing in it says what a tile does to a logit.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of an embedded tile and of the classifier's hidden layer.
        attention_hidden: hidden size of the attention.
        drop: dropout of embedded tiles, while training.

    Source:
        Ilse, Tomczak and Welling, ICML 2018 (arXiv:1802.04712), equations 7 and 9.
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
        embedded = self.embed(features)
        weights = softmax_of_tiles(self.scores(embedded), present).to(embedded.dtype)
        logits: Tensor = self.classifier((weights * embedded).sum(1))
        return logits

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(bags, tiles)``, sums to 1 over a bag."""
        features = self.checked(features, present)
        return softmax_of_tiles(self.scores(self.embed(features)), present)[..., 0]

    def subsets(self, features: Tensor, target: int) -> NormalisedSum:
        embedded: Tensor = self.embed(features)
        first, behind = two_layers(self.classifier, target)
        scores, to_logits = self.scores(embedded)[:, 0].double(), self.finish(target)
        return NormalisedSum(
            embedded.double() @ first, scores, lambda pooled: to_logits(behind(pooled)[:, None])
        )


class LinearAttentionMIL(PooledFeatures):
    """``W sum_i a_i h_i + bias``: gated attention of the features themselves, a linear classifier.

    It is exact to tiles: with the attention held, tile i contributes ``a_i W h_i``, and the bias is
    a constant. There is no embedding, which would not be linear. What the attention sees of the
    features is brought to one scale first, unlike in the paper.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        attention_hidden: hidden size of the attention.
        drop: dropout of features, while training.

    Source:
        Ilse, Tomczak and Welling, ICML 2018 (arXiv:1802.04712), equations 7 and 9.
    """

    def __init__(
        self, in_features: int, outputs: int, *, attention_hidden: int = 128, drop: float = 0.0
    ) -> None:
        super().__init__(in_features, outputs)
        self.drop = nn.Dropout(drop)
        self.scores = GatedScorer(in_features, 1, attention_hidden)

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        return super().evidence(self.drop(features), present)

    def shares(self, features: Tensor, present: Tensor | None) -> Tensor:
        return softmax_of_tiles(self.scores(features), present).to(features.dtype)

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(bags, tiles)``, sums to 1 over a bag."""
        return self.shares(self.checked(features, present), present)[..., 0]

    def subsets(self, features: Tensor, target: int) -> NormalisedSum:
        return self.normalised_sum(features, self.scores(features)[:, 0], target)


def embedding(in_features: int, hidden: int, drop: float) -> nn.Sequential:
    """A tile's features made ``hidden`` numbers of at least 0."""
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Dropout(drop))


def two_layers(classifier: nn.Sequential, target: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A classifier, in float64, cut where it is still linear: sums may be taken before or after.

    Args:
        classifier: linear, ReLU, linear.
        target: the output.

    Returns:
        The first layer's weights ``(in, hidden)``, without its bias, and what is behind them:
        ``(..., hidden)`` to ``(...)``.
    """
    first, last = classifier[0], classifier[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    shift, row = first.bias.detach().double(), last.weight.detach()[target].double()
    constant = last.bias.detach()[target].double()
    return first.weight.detach().double().mT, lambda x: (x + shift).relu_() @ row + constant
