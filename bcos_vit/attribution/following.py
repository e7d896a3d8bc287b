"""One forward pass through held gates and one backward pass: a logit taken apart."""

import torch
from torch import Tensor, nn

from bcos_vit.attribution.attribution import Attribution
from bcos_vit.attribution.checks import activations, check_eval, check_logits, undisturbed
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.gates import Gates
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain.mode import unwrapped
from bcos_vit.layers.fast import plain_formulas
from bcos_vit.models.base import BcosModel

# Times the rounding of one number: what a deep network's sums may lose, and no error of algebra.
_ROUNDINGS = 1e4
_GATES = (
    "ReLU ReLU6 GELU GELUTanh QuickGELU SiLU Swish Mish Hardswish HardSwish LeakyReLU PReLU ELU"
    " SELU CELU Tanh Hardtanh Softsign Sigmoid Hardsigmoid HardSigmoid Softmax Identity GatedGelu"
)


def check_followable(method: str, classifier: Classifier) -> None:
    """Refuse networks in training mode, B-cos networks, and activations that are no gates.

    Raises:
        UnsupportedMethodError: naming ``method``, the part and the reason.
    """
    check_eval(method, classifier)
    if is_aligned(classifier.model):
        raise UnsupportedMethodError(
            f"{method}: a B-cos network is explained by its own W(x); use the method 'bcos'"
        )
    for where, module in activations(classifier.model).items():
        if type(module).__name__ not in _GATES.split():
            raise UnsupportedMethodError(
                f"{method}: activation {where!r} ({type(module).__name__}) is not known to be its"
                " input times a gate"
            )


def is_aligned(model: nn.Module) -> bool:
    """Whether it is a B-cos network, or on its way to one: no network of plain weights."""
    return any(
        (isinstance(module, BcosModel) and not module.kit.conventional)
        or getattr(module, "b", 1) != 1
        for module in unwrapped(model).modules()
    )


def take_apart(
    gates: Gates,
    classifier: Classifier,
    images: Tensor,
    target: Tensor,
    *,
    behind_encoding: bool = False,
) -> Attribution:
    """Maps and constants of one class of each image, by the rules of ``gates``.

    Args:
        gates: made for these images.
        classifier: what is explained.
        images: ``(n, 3, h, w)`` in [0, 1].
        target: ``(n,)`` classes.
        behind_encoding: whether a pixel's value is what the encoding makes of it, all of which it
            then owns; else it is the pixel's own, and the encoding is the first layer.

    Raises:
        UnsupportedMethodError: an operation that cannot be followed; or the parts do not sum to the
            logits that the classifier gives without any of this.
        ValueError: the classifier has no such class.
    """
    model = unwrapped(classifier.model)
    with undisturbed(images), plain_formulas():
        with torch.no_grad():
            logits = classifier(images)
        check_logits(logits, target)
        leaf = images.detach().clone()
        if behind_encoding:
            leaf = classifier.encode(leaf).detach()
            _check_places(gates.method, leaf, images)
            gates.first_layer(leaf)
        leaf = gates.carry(leaf.requires_grad_())
        with gates:
            encoded = leaf
            if not behind_encoding:
                with gates.encoding():
                    encoded = classifier.encode(leaf)
            followed = model(encoded)
        chosen = gates.resolve(followed).gather(1, target.clone()[:, None]).sum()
        inlets = [leaf, *gates.inlets]
        grads = torch.autograd.grad(chosen, [*inlets, *gates.gates.values()], allow_unused=True)
    maps = torch.zeros_like(leaf[:, 0]).detach()
    for inlet, grad in zip(inlets, grads, strict=False):
        maps += 0 if grad is None else (inlet.detach() * grad).sum(1)
    constants = {
        name: torch.zeros_like(maps[:, 0, 0]) if grad is None else grad
        for name, grad in zip(gates.gates, grads[len(inlets) :], strict=True)
    }
    attribution = Attribution(
        maps, target.clone(), logits, "logits", constants, forward_passes=2, backward_passes=1
    )
    _check_gap(gates.method, attribution)
    return attribution


def _check_places(method: str, encoded: Tensor, images: Tensor) -> None:
    """Refuse encodings that do not have one place per pixel.

    Raises:
        UnsupportedMethodError: naming the shapes.
    """
    if encoded.ndim != 4 or encoded.shape[-2:] != images.shape[-2:]:
        raise UnsupportedMethodError(
            f"{method}: the encoding makes {tuple(encoded.shape)} of images"
            f" {tuple(images.shape)}, which is not one place per pixel"
        )


def _check_gap(method: str, attribution: Attribution) -> None:
    """Refuse parts that do not sum to their logit.

    Raises:
        UnsupportedMethodError: by more than rounding.
    """
    gap = attribution.completeness_gap
    assert gap is not None
    size = attribution.maps.double().abs().sum((1, 2)) + attribution.logit.abs()
    for term in attribution.constants.values():
        size = size + term.double().abs()
    worst = int((gap / size.clamp_min(1e-300)).argmax())
    if not gap[worst] <= _ROUNDINGS * torch.finfo(attribution.maps.dtype).eps * size[worst]:
        raise UnsupportedMethodError(
            f"{method}: the parts of a logit miss it by {gap[worst]:.3g}, which is more than"
            " rounding: the network computes something that was not seen"
        )
