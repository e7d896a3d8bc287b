"""Passes through a network that leave nothing behind on it."""

import torch
from torch import Tensor, nn

from bcos_vit.attribution.checks import target_logit
from bcos_vit.attribution.classifier import Classifier


def encoded(classifier: Classifier, images: Tensor) -> Tensor:
    """What the network itself is given, ``(n, c, h, w)``, without a graph.

    Raises:
        ValueError: the encoding does not keep a place for each pixel.
    """
    with torch.no_grad():
        x: Tensor = classifier.encode(images)
    if x.ndim != 4 or x.shape[0] != len(images) or x.shape[2:] != images.shape[2:]:
        raise ValueError(
            f"the encoding must make (n, channels, height, width) of {tuple(images.shape)},"
            f" got {tuple(x.shape)}"
        )
    # An encoding may give back what it got; autograd keeps no tensor of inference mode.
    return x.clone() if x.is_inference() else x.detach()


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Logits ``(n, classes)`` of encoded images, without a graph."""
    with torch.no_grad():
        y: Tensor = model(x)
    return y.detach()


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the target's with respect to the encoded images.

    Parameters keep the gradients that they had.

    Args:
        model: in eval mode, so that no image's logits depend on another image.
        x: ``(n, c, h, w)`` encoded images.
        target: ``(n,)`` classes.

    Returns:
        ``(n, classes)`` and ``(n, c, h, w)``, without a graph.
    """
    leaf = x.detach().clone().requires_grad_()
    logits: Tensor = model(leaf)
    (slope,) = torch.autograd.grad(target_logit(logits, target).sum(), leaf)
    return logits.detach(), slope


def generator(seed: int) -> torch.Generator:
    """Chance of one's own, the same on every device; the caller's is left as it is."""
    return torch.Generator("cpu").manual_seed(seed)


def noisy(images: Tensor, deviation: float, chance: torch.Generator) -> Tensor:
    """Images with Gaussian noise, cut to [0, 1].

    All images of a batch get the same noise, so none depends on what it is batched with.

    Args:
        images: ``(n, 3, h, w)`` in [0, 1].
        deviation: of the noise.
        chance: where it comes from.
    """
    noise = torch.randn(images.shape[1:], generator=chance, dtype=torch.float32)
    return (images + deviation * noise.to(images)).clamp(0, 1)
