"""Layer-wise relevance propagation through conventional aggregators, to their tiles.

Relevance of a logit goes back layer by layer. Through a linear layer ``z = W x + bias`` by the
epsilon rule, ``R_j = x_j sum_k w_jk R_k / (z_k + epsilon sign z_k)``; through ReLU as it is;
through LayerNorm with its deviation held; through attention with its weights held. A bias keeps its
share, and so does a class token, so tiles sum to the logit only where there are neither.

All of these are gradient times input of the same network with factors held, which is how they are
computed: one forward and one backward pass.

Source: Bach et al., PLoS ONE 2015 (epsilon rule); Ali et al., ICML 2022 (arXiv:2202.07304;
attention and LayerNorm); for bags xMIL, NeurIPS 2024 (arXiv:2406.04280). Written from
the papers.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bcos_vit.errors import UnsupportedMethodError
from pathology.aggregators.abmil import AttentionMIL
from pathology.aggregators.additive import AdditiveMIL
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.clam import ClassAttentionMIL
from pathology.aggregators.explain import check_target, checked_bag
from pathology.aggregators.transmil import SelfAttention, SquarePosition, TransMIL

EPSILON = 1e-6


class _Rules:
    """The layers of aggregators, with what the rules hold constant.

    Args:
        epsilon: of the epsilon rule.
    """

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def stabilised(self, z: Tensor) -> Tensor:
        """``z``, whose relevance is divided by ``z + epsilon sign z`` instead of ``z``."""
        held = z.detach()
        sign = torch.where(held >= 0, 1.0, -1.0).to(held)
        factor = held / (held + self.epsilon * sign) if self.epsilon else torch.ones_like(held)
        return held + factor * (z - held)

    def linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.stabilised(layer(x))

    def norm(self, layer: nn.LayerNorm, x: Tensor) -> Tensor:
        """The mean is linear; the deviation is held."""
        centred = x - x.mean(-1, keepdim=True)
        deviation = (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt().detach()
        return centred / deviation * layer.weight + layer.bias

    def embed(self, layers: nn.Sequential, features: Tensor) -> Tensor:
        return self.linear(layers[0], features).relu()  # then dropout, of nothing

    def two_layers(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        return self.linear(layers[2], self.linear(layers[0], x).relu())

    def self_attention(self, layer: SelfAttention, x: Tensor) -> Tensor:
        """Queries and keys are held, values are not."""
        normed = self.norm(layer.norm, x)
        parts = self.linear(layer.queries_keys_values, normed).unflatten(-1, (3, layer.heads, -1))
        queries, keys, values = parts.permute(1, 2, 0, 3).unbind()  # heads, tokens, size
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        mixed = self.stabilised(scores.softmax(-1).detach() @ values)
        return x + self.linear(layer.out, mixed.transpose(0, 1).flatten(1))

    def position(self, layer: SquarePosition, tokens: Tensor, side: int) -> Tensor:
        """A sum of convolutions is one linear layer."""
        square = tokens[1:].mT.unflatten(-1, (side, side))[None]
        coded = square + sum(each(square) for each in layer.convolutions)
        return torch.cat([tokens[:1], self.stabilised(coded)[0].flatten(1).mT])


def _abmil(model: AttentionMIL, features: Tensor, rules: _Rules) -> Tensor:
    embedded = rules.embed(model.embed, features)
    weights = model.scores(embedded).softmax(0).detach()
    return rules.two_layers(model.classifier, rules.stabilised((weights * embedded).sum(0)))


def _additive(model: AdditiveMIL, features: Tensor, rules: _Rules) -> Tensor:
    embedded = rules.embed(model.embed, features)
    weights = model.scores(embedded).softmax(0).detach()
    return rules.two_layers(model.classifier, weights * embedded).sum(0)


def _clam(model: ClassAttentionMIL, features: Tensor, rules: _Rules) -> Tensor:
    embedded = rules.embed(model.embed, features)
    weights = model.scores(embedded).softmax(0).detach()
    pooled = rules.stabilised(weights.mT @ embedded)
    return rules.stabilised((pooled * model.weight).sum(-1) + model.bias)


def _transmil(model: TransMIL, features: Tensor, rules: _Rules) -> Tensor:
    tiles = rules.embed(model.embed, features)
    side = math.isqrt(len(tiles) - 1) + 1
    tokens = torch.cat([model.token[None], tiles, tiles[: side * side - len(tiles)]])
    tokens = rules.position(model.position, rules.self_attention(model.first, tokens), side)
    token = rules.self_attention(model.second, tokens)[0]
    return rules.linear(model.classifier, rules.norm(model.norm, token))


_FORMS: dict[type[Aggregator], Callable[..., Tensor]] = {
    AttentionMIL: _abmil,
    AdditiveMIL: _additive,
    ClassAttentionMIL: _clam,
    TransMIL: _transmil,
}


def check_lrp(aggregator: Aggregator) -> None:
    """Refuse an aggregator that has no rules.

    Raises:
        UnsupportedMethodError: naming it.
    """
    if type(aggregator) in _FORMS:
        return
    name = type(aggregator).__name__
    raise UnsupportedMethodError(
        f"LRP has no rules for {name}: "
        + (
            "it is a sum over tiles as it is, so take its contributions"
            if aggregator.exact
            else "they are known for " + ", ".join(each.__name__ for each in _FORMS)
        )
    )


def lrp(
    aggregator: Aggregator, features: Tensor, target: int, *, epsilon: float = EPSILON
) -> Tensor:
    """Relevance of tiles for a logit.

    Args:
        aggregator: a conventional one with rules, in eval mode.
        features: ``(N, D)``; tiles that there are, at least one, no padding.
        target: the output.
        epsilon: of the epsilon rule; at 0 nothing is lost but to biases and the class token.

    Returns:
        ``(N,)``.

    Raises:
        UnsupportedMethodError: an aggregator without rules.
        ValueError: features of the wrong shape or with NaN, no tile, ``target`` is no output, a
            negative epsilon, an aggregator in training mode.
        TypeError: features are not floating point, or wider than the aggregator's weights.
    """
    check_lrp(aggregator)
    check_target(aggregator, target)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
    if aggregator.training:
        raise ValueError("the aggregator is in training mode; call eval() first")
    bag = checked_bag(aggregator, features)
    if not len(bag):
        raise ValueError("a bag without tiles has no relevance to share out")
    leaf = bag.clone().requires_grad_()
    rules = _Rules(epsilon)
    with torch.enable_grad(), torch.autocast(bag.device.type, enabled=False):
        logits = _FORMS[type(aggregator)](aggregator, leaf, rules)
        if aggregator.logits is not None:
            logits = aggregator.logits(logits[None])[0]
        (gradient,) = torch.autograd.grad(logits[target], leaf)
    return (gradient * bag).sum(1)
