"""Rules of layer-wise relevance propagation, written as functions whose gradient is the rule.

A layer passes relevance ``R_k`` of its outputs ``z_k = sum_i a_i w_ik + b_k`` on to its inputs.
Here relevance is always value times gradient: a rule gives ``z`` again, with another gradient, and
what it passes on is ``a_i dz_k/da_i``. The share of a bias, and what a stabiliser takes, go behind
gates (:meth:`~bcos_vit.attribution.tracking.Tracking.owned`), so that what is lost is measured.

Source:
    Bach et al., PLOS ONE 2015 (epsilon, alpha-beta); Montavon et al., "Layer-Wise Relevance
    Propagation: An Overview", 2019 (gamma); Montavon et al., Pattern Recognition 2017 (box);
    Lapuschkin et al., Nature Communications 2019 (flat).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Owned: TypeAlias = Callable[[Tensor], Tensor]
"""Puts what pixels lose of a layer's output behind a gate."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """``apply(x, weight) + bias``.

    Args:
        apply: linear in both.
        x: what it is applied to, with a graph.
        weight: outputs first.
        bias: of a shape that can be added.
        owned: puts a constant behind its gate.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    owned: Callable[[Tensor, torch.Size], Tensor]

    def value(self) -> Tensor:
        """The output, without a graph."""
        with torch.no_grad():
            y = self.apply(self.x, self.weight)
            return y if self.bias is None else y + self.bias

    def folded(self, scale: Tensor, shift: Tensor) -> "Layer":
        """The layer with a batch norm behind it taken in, ``scale (w x + b) + shift``."""
        weight = self.weight * scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        bias = shift if self.bias is None else self.bias * scale + shift
        return Layer(self.apply, self.x, weight, bias, self.owned)

    def add_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """``y`` plus a bias behind its gate."""
        return y if bias is None else y + self.owned(bias, y.shape)

    def parts(self) -> tuple[Tensor, Tensor]:
        """Sums of the positive and of the negative contributions ``a_i w_ik``, bias included."""
        over, under = self.weight.clamp_min(0), self.weight.clamp_max(0)
        x = self.x * (self.x.detach() > 0)
        positive, negative = self.apply(x, over), self.apply(x, under)
        if (self.x < 0).any():
            x = self.x - x
            positive = positive + self.apply(x, under)
            negative = negative + self.apply(x, over)
        if self.bias is not None:
            positive = self.add_bias(positive, self.bias.clamp_min(0))
            negative = self.add_bias(negative, self.bias.clamp_max(0))
        return positive, negative


def epsilon(layer: Layer, stabiliser: float) -> Tensor:
    """``R_i = a_i w_ik / (z_k + eps sign(z_k)) R_k``; without ``eps``, the plain layer."""
    z = layer.add_bias(layer.apply(layer.x, layer.weight), layer.bias)
    if not stabiliser:
        return z
    still = z.detach()
    kept = still.abs() / (still.abs() + stabiliser)
    return z * kept + layer.owned(still * (1 - kept), z.shape)


def gamma(layer: Layer, more: float) -> Tensor:
    """Contributions of the output's own sign count ``1 + gamma`` times.

    For inputs that are never negative and outputs that are never, ``w + gamma w+`` as published;
    so generalised, the denominator is never smaller than the output.
    """
    positive, negative = layer.parts()
    still = (positive + negative).detach()
    own = torch.where(still > 0, positive, negative)
    weighted = positive + negative + more * own
    return weighted * _over(still, weighted.detach())


def alpha_beta(layer: Layer, alpha: float) -> Tensor:
    """``R_i = (alpha c_i / sum of c+ - beta c_i / sum of c-) R_k``, ``beta = alpha - 1``.

    ``alpha`` goes to contributions of the output's own sign. Where there are none of the other
    sign, these take all, so that relevance is conserved.
    """
    positive, negative = layer.parts()
    still = (positive + negative).detach()
    own = torch.where(still > 0, positive, negative)
    other = positive + negative - own
    alone = other.detach() == 0
    to_own = torch.where(alone, 1.0, alpha)
    shares = own * _over(to_own, own.detach()) - other * _over(to_own - 1, other.detach())
    return still * shares


def box(layer: Layer, low: Tensor, high: Tensor) -> Tensor:
    """``R_i = (a_i w - l_i w+ - h_i w-) / sum R_k``, for pixels between ``low`` and ``high``.

    The bias has no share. Relevance of an output whose sum is 0 is absorbed.
    """
    over, under = layer.weight.clamp_min(0), layer.weight.clamp_max(0)
    z = layer.apply(layer.x, layer.weight) - layer.apply(low, over) - layer.apply(high, under)
    return _instead(layer, z)


def flat(layer: Layer, ones: Tensor) -> Tensor:
    """Every input of a receptive field has the same share; ``ones`` of the input's shape."""
    return _instead(layer, layer.apply(ones, torch.ones_like(layer.weight)))


def _instead(layer: Layer, z: Tensor) -> Tensor:
    """The layer's output, its relevance going where ``z`` comes from."""
    still = layer.value()
    factor = _over(still, z.detach())
    return z * factor + layer.owned(still - z.detach() * factor, z.shape)


def _over(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where ``b`` is."""
    none = b == 0
    return torch.where(none, 0.0, a / torch.where(none, 1.0, b))
