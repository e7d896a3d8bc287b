"""Attention-aware layer-wise relevance propagation for conventional vision transformers."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from bcos_vit.attribution import relevance
from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import attentions, check_batch
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.following import check_followable, take_apart
from bcos_vit.attribution.lrp import RelevanceGates
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.relevance import Layer
from bcos_vit.attribution.settings import at_least, one_of
from bcos_vit.errors import UnsupportedMethodError

Attention = Literal["taylor", "held"]


@register
@dataclass(frozen=True)
class AttnLRP:
    """Relevance of pixels in a transformer, through queries and keys as well as values.

    Softmax passes relevance on by its first-order Taylor expansion, ``R_i = x_i (R_i - s_i sum_j
    R_j)``; a product of two activations (queries with keys, the attention matrix with values) gives
    each half; activations and norms pass it through, their gates and deviations held; layers with
    weights by the gamma rule, without which relevance of a vision transformer is mostly noise of
    both signs. The expansion has a constant of its own, so relevance is not
    conserved by pixels, position, tokens and biases alone: what it takes is measured and called
    ``absorbed``.

    With ``attention="held"`` the attention matrix is a constant and values take all: conservative
    propagation (CP-LRP). With both gammas 0 that is the algebra of the ledger, whose maps with
    ``zero="mean"`` it then gives.

    Relevance is of what the encoding makes of pixels. Constants: ``position``, ``tokens``,
    ``biases`` as of the ledger; ``absorbed``, by softmax and stabiliser.

    Others claim patents on relevance propagation; whether a use needs a licence is for its user to
    find out.

    Args:
        attention: ``"taylor"`` or ``"held"``.
        gamma: how much more contributions of the output's own sign count in linear layers; 0 is the
            epsilon rule. The default of both is the middle of the grid that the authors search.
        gamma_convolutions: the same in convolutions, of patches or a stem.
        epsilon: stabiliser of the epsilon rule, in units of a layer's output.

    Source:
        Achtibat et al., "AttnLRP", ICML 2024 (arXiv:2402.05602); ``"held"``: Ali et al., "XAI for
        Transformers: Better Explanations through Conservative Propagation", ICML 2022
        (arXiv:2202.07304).
    """

    name: ClassVar[str] = "attnlrp"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"
    version: ClassVar[int] = 2  # 1 had no gamma by default

    attention: Attention = "taylor"
    gamma: float = 0.05
    gamma_convolutions: float = 0.25
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        one_of("attention", self.attention, get_args(Attention))
        at_least("gamma", self.gamma, 0)
        at_least("gamma_convolutions", self.gamma_convolutions, 0)
        at_least("epsilon", self.epsilon, 0)

    def check(self, classifier: Classifier) -> None:
        check_followable(self.name, classifier)
        if not attentions(classifier.model):
            raise UnsupportedMethodError(
                f"{self.name}: the network has no attention; use 'lrp' for CNNs"
            )

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        check_batch(images, target)
        self.check(classifier)
        kind = _Taylor if self.attention == "taylor" else _Held
        gates = kind(self, classifier, images)
        return take_apart(gates, classifier, images, target, behind_encoding=True)


class _Held(RelevanceGates):
    """The rules of :class:`AttnLRP` outside of attention; in it, the matrix is held."""

    def __init__(self, settings: AttnLRP, classifier: Classifier, images: Tensor) -> None:
        super().__init__(settings.name, classifier, images, {}, settings.epsilon)
        self._settings = settings

    def pass_on(self, layer: Layer) -> Tensor:
        is_linear = layer.weight.ndim <= 2
        gamma = self._settings.gamma if is_linear else self._settings.gamma_convolutions
        return relevance.gamma(layer, gamma) if gamma else super().pass_on(layer)


class _Taylor(_Held):
    """The rules of :class:`AttnLRP` in attention as well."""

    def product(self, name: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        factors = [each for each in args if self.is_carried(each)]
        if len(factors) != 2 or "div" in name:
            return super().product(name, func, *args, **kwargs)
        return _half(torch.mul(*factors) if "mul" in name and "mat" not in name else func(*args))

    def on_softmax(self, x: Tensor, dim: int = -1, *_: Any, **__: Any) -> Tensor:
        """Its value, its slope, and behind a gate what the two do not account for."""
        y = x.softmax(dim)
        still, at = y.detach(), torch.where(y.detach() > 0, x.detach(), 0.0)
        rest = still - still * (at - (still * at).sum(dim, keepdim=True))
        return y - rest + self.owned(rest, y.shape, "absorbed")

    def attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if not (query.requires_grad and key.requires_grad):
            return super().attention(query, key, value, mask)
        scores = _half(query @ key.transpose(-2, -1))
        if mask is not None:
            seen = mask if mask.dtype == torch.bool else mask > float("-inf")
            if mask.dtype != torch.bool:
                finite = torch.where(seen, mask.detach(), 0.0)
                scores = scores + self.owned(finite, scores.shape, self.constant_name(mask))
            scores = scores.masked_fill(~seen, float("-inf"))
        return _half(self.on_softmax(scores) @ value)


def _half(product: Tensor) -> Tensor:
    """A product of two activations, each of which has half of its relevance."""
    return product / 2 + product.detach() / 2
