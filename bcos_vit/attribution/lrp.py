"""Layer-wise relevance propagation for conventional CNNs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from bcos_vit.attribution import relevance
from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import attentions, check_batch
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.following import check_followable, take_apart
from bcos_vit.attribution.gates import Gates
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.relevance import Layer
from bcos_vit.attribution.settings import at_least, one_of
from bcos_vit.errors import UnsupportedMethodError

First = Literal["box", "flat", "same"]
Rule = Literal["gamma", "alpha_beta", "epsilon"]


@register
@dataclass(frozen=True)
class LRP:
    """Relevance of pixels, passed down layer by layer.

    The default is a composite of the overview: ``epsilon`` in linear layers, ``gamma`` in
    convolutions, ``box`` in the first. Batch norms right behind a convolution are folded into it,
    others are layers by themselves, by the epsilon rule; a residual sum is shared in proportion;
    a maximum takes all; activations pass relevance through. Deviations of layer norms and gates of
    squeeze-and-excite are held.

    Relevance is of what the encoding makes of pixels. Constants: ``absorbed``, by biases and
    stabiliser. With ``convolutions="epsilon"``, ``first="same"`` and ``epsilon=0`` maps are those
    of the ledger with ``zero="mean"``.

    Others claim patents on relevance propagation; whether a use needs a licence is for its user to
    find out.

    Args:
        convolutions: rule of convolutions but the first: ``"gamma"``, ``"alpha_beta"`` or
            ``"epsilon"``.
        first: rule of the layer that takes the image: ``"box"`` (pixels lie between black and
            white), ``"flat"`` (all of a receptive field alike), ``"same"`` as other convolutions.
        gamma: how much more contributions of the output's own sign count, at least 0.
        alpha: weight of these contributions in ``"alpha_beta"``, at least 1; beta is 1 less.
        epsilon: stabiliser, in units of a layer's output, at least 0.

    Source:
        Bach et al., PLOS ONE 2015; Montavon et al., "Layer-Wise Relevance Propagation: An
        Overview", 2019; composites: Kohlbrenner et al., "Towards Best Practice in Explaining Neural
        Network Decisions with LRP", IJCNN 2020 (arXiv:1910.09840).
    """

    name: ClassVar[str] = "lrp"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    convolutions: Rule = "gamma"
    first: First = "box"
    gamma: float = 0.25
    alpha: float = 2.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        one_of("convolutions", self.convolutions, get_args(Rule))
        one_of("first", self.first, get_args(First))
        at_least("gamma", self.gamma, 0)
        at_least("alpha", self.alpha, 1)
        at_least("epsilon", self.epsilon, 0)

    def check(self, classifier: Classifier) -> None:
        check_followable(self.name, classifier)
        for where in attentions(classifier.model):
            raise UnsupportedMethodError(
                f"{self.name}: {where!r} is attention, for which it has no rule; use 'attnlrp'"
            )

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        check_batch(images, target)
        self.check(classifier)
        gates = _Composite(self, classifier, images)
        return take_apart(gates, classifier, images, target, behind_encoding=True)


class RelevanceGates(Gates):
    """Layers with weights pass relevance on by rules, chosen once what follows a layer is known.

    Args:
        method, classifier, images, names: as of :class:`~bcos_vit.attribution.gates.Gates`.
        stabiliser: of the epsilon rule.
    """

    def __init__(
        self,
        method: str,
        classifier: Classifier,
        images: Tensor,
        names: dict[str, str],
        stabiliser: float,
    ) -> None:
        super().__init__(method, classifier, images, names)
        self.stabiliser = stabiliser

    def pass_on(self, layer: Layer) -> Tensor:
        """The layer's output, its gradient by the rule for it."""
        return relevance.epsilon(layer, self.stabiliser)

    def affine(
        self,
        apply: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        name: str,
    ) -> Tensor:
        owned = partial(self.owned, name=name)
        return self._waiting(Layer(apply, x, weight, bias, owned))

    def channel_affine(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        scale, shift = scale.to(x.dtype), shift.to(x.dtype)
        layer = self.waiting_layer(x)
        if layer is not None and layer.weight.ndim == x.ndim:
            return self._waiting(layer.folded(scale, shift))
        x = self.ruled(x)
        by_itself = Layer(torch.mul, x, scale, shift, partial(self.owned, name="biases"))
        return relevance.epsilon(by_itself, self.stabiliser)

    def convolution(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        if "transpose" in func.__name__:
            return NotImplemented  # inputs come first in its weights
        return super().convolution(func, *args, **kwargs)

    def _waiting(self, layer: Layer) -> Tensor:
        return self.wait(layer.value(), layer, partial(self.pass_on, layer))


class _Composite(RelevanceGates):
    """The rules of :class:`LRP`."""

    def __init__(self, settings: LRP, classifier: Classifier, images: Tensor) -> None:
        absorbed = dict.fromkeys(("biases", "position", "tokens"), "absorbed")
        super().__init__(settings.name, classifier, images, absorbed, settings.epsilon)
        self._settings = settings
        self._encode = classifier.encode
        self._first: Tensor | None = None
        self._met_first = False
        self._bounds: tuple[Tensor, ...] = ()

    def first_layer(self, encoded: Tensor) -> None:
        self._first = encoded
        if self._settings.first == "box":
            ends = [self._encode(make(self.images)) for make in (torch.zeros_like, torch.ones_like)]
            low, high = torch.minimum(*ends), torch.maximum(*ends)
            if (encoded < low).any() or (encoded > high).any():
                raise UnsupportedMethodError(
                    f"{self.method}: the encoding puts colours outside of black and white, between"
                    " which rule 'box' takes them to lie; use first='flat' or 'same'"
                )
            self._bounds = (self.inlet(low), self.inlet(high))
        elif self._settings.first == "flat":
            self._bounds = (self.inlet(torch.ones_like(encoded)),)

    def resolve(self, tensor: Tensor) -> Tensor:
        resolved = super().resolve(tensor)
        if not self._met_first and self._settings.first != "same":
            raise UnsupportedMethodError(
                f"{self.method}: rule {self._settings.first!r} is for a layer that takes the image,"
                " and no convolution does so directly; use first='same'"
            )
        return resolved

    def pass_on(self, layer: Layer) -> Tensor:
        settings = self._settings
        if layer.x is self._first and settings.first != "same":
            self._met_first = True
            rule = relevance.box if settings.first == "box" else relevance.flat
            return rule(layer, *self._bounds)
        if layer.weight.ndim <= 2 or settings.convolutions == "epsilon":
            return relevance.epsilon(layer, settings.epsilon)
        if settings.convolutions == "gamma":
            return relevance.gamma(layer, settings.gamma)
        return relevance.alpha_beta(layer, settings.alpha)
