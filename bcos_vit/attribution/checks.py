"""What methods ask of images, targets and networks before they run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bcos_vit.attribution.classifier import Classifier
from bcos_vit.errors import NotExplainableError, UnsupportedMethodError
from bcos_vit.explain.mode import check_explainable, unwrapped
from bcos_vit.layers.bias import TERM as BIASES


def check_batch(images: Tensor, target: Tensor) -> None:
    """Refuse what no method can explain.

    Args:
        images: must be ``(n, 3, h, w)`` floating point in [0, 1].
        target: must be ``(n,)`` whole numbers, none negative.

    Raises:
        ValueError: another shape or range, NaN.
        TypeError: another type.
    """
    if not isinstance(images, Tensor) or not images.dtype.is_floating_point:
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating point tensor in [0, 1], got {kind}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images must be (n, 3, height, width), got {tuple(images.shape)}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # neither with NaN
        raise ValueError(f"images must lie in [0, 1] without NaN, got [{low:g}, {high:g}]")
    if not isinstance(target, Tensor) or target.dtype.is_floating_point or target.dtype.is_complex:
        kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"target must be a tensor of class indices, got {kind}")
    if target.dtype == torch.bool:
        raise TypeError("target must be a tensor of class indices, got torch.bool")
    if target.shape != images.shape[:1]:
        raise ValueError(
            f"target must have one class per image, ({len(images)},), got {tuple(target.shape)}"
        )
    if target.device != images.device:
        raise ValueError(f"images are on {images.device}, target is on {target.device}")
    if int(target.min()) < 0:
        raise ValueError(f"target must not be negative, got {int(target.min())}")


def check_logits(logits: Tensor, target: Tensor) -> None:
    """Refuse classes that the network does not have.

    Raises:
        ValueError: the network does not return ``(n, classes)``, or a target is not one of them.
    """
    if logits.ndim != 2 or len(logits) != len(target):
        raise ValueError(f"the network must return (n, classes), got {tuple(logits.shape)}")
    if int(target.max()) >= logits.shape[1]:
        raise ValueError(f"target must be in [0, {logits.shape[1]}), got {int(target.max())}")


def check_eval(name: str, classifier: Classifier) -> None:
    """Refuse networks in training mode, where images of a batch mix and chance has a say.

    Raises:
        UnsupportedMethodError: naming the method ``name`` and the first such module.
    """
    for where, module in classifier.model.named_modules():
        if module.training:
            raise UnsupportedMethodError(
                f"{name}: {_named(where, module)} is in training mode; call model.eval() first"
            )


def target_logit(logits: Tensor, target: Tensor) -> Tensor:
    """The logit of each image's class, ``(n,)``, after a check of both."""
    check_logits(logits, target)
    # A copy, as autograd may not keep a tensor of the caller's inference mode.
    return logits.gather(1, target.clone()[:, None])[:, 0]


@contextmanager
def undisturbed(images: Tensor) -> Iterator[None]:
    """With gradients, outside of the caller's inference mode and autocast."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(images.device.type, enabled=False),
    ):
        yield


# --- what a network is made of ------------------------------------------------------------------

_ACTIVATIONS = tuple(
    kind
    for name in nn.modules.activation.__all__
    if name != "MultiheadAttention" and issubclass(kind := getattr(nn, name), nn.Module)
)
_MODULES_OF_ACTIVATIONS = (
    "timm.layers.activations",
    "timm.layers.activations_me",
    "bcos_vit.layers.activation",
)


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that are activations, torch's and timm's, by name in the network."""
    return {
        name: module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, _ACTIVATIONS) or type(module).__module__ in _MODULES_OF_ACTIVATIONS
    }


def attentions(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that weigh tokens by a softmax of queries and keys, by name in the network."""
    return {
        name: module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, nn.MultiheadAttention)
        or (hasattr(module, "qkv") and hasattr(module, "num_heads"))
    }


def check_bcos(name: str, classifier: Classifier) -> None:
    """Refuse networks that are not B-cos: not one matrix W(x) per image, or with biases inside.

    Raises:
        UnsupportedMethodError: naming the method ``name`` and the first layer at fault.
    """
    try:
        check_explainable(classifier.model)
    except NotExplainableError as error:
        raise UnsupportedMethodError(f"{name} is for B-cos networks: {error}") from error
    for where, module in classifier.model.named_modules():
        if BIASES in getattr(module, "constant_terms", ()):
            raise UnsupportedMethodError(
                f"{name} is for B-cos networks; {_named(where, module)} adds a bias, as in a"
                " conventional network"
            )


def _named(where: str, module: nn.Module) -> str:
    """A module as messages name it."""
    return f"{where!r} ({type(module).__name__})" if where else f"the {type(module).__name__}"
