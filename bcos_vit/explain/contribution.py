"""Exact attribution of logits to places by the model's own effective linear map."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from bcos_vit.explain.explanation import Explanation
from bcos_vit.explain.trace import PIXELS, Trace

Target = int | Sequence[int] | Tensor | None
Targets = Sequence[int] | Tensor | None


def explain(
    model: nn.Module, images: Tensor, target: Target = None, *, depth: str = PIXELS
) -> Explanation:
    """Take a logit of each image apart into contributions of its pixels.

    The model computes ``logit = <W(x), x> + bias``; a pixel's contribution is its share of the sum.
    One forward and one backward pass for the whole batch. ``images`` and ``model`` are left as they
    were, under exceptions too; calls may nest and run in several threads at once. Autocast is
    switched off: contributions in half precision do not add up.

    The sum holds at every layer through which everything flows: ``logit = <W(a), a> + constants``
    for its output ``a``. At such a ``depth`` the backward pass ends there, which costs a fraction.
    A position of a deep layer sees a receptive field, often most of the image: a map at a depth
    says which places of the feature map the logit comes from, not which pixels. What position codes
    and biases have put into the features before the cut is part of them; what a class token and
    registers have gathered by then belongs to no place and is the constant ``"tokens"``.

    Args:
        model: a B-cos model in eval mode. At a depth, a compiled one runs as it was written.
        images: ``(batch, channels, height, width)``, or one image ``(channels, height, width)``.
        target: class index for all images, or one per image; each image's predicted class when
            omitted.
        depth: where to stop, one of ``model.depths()``: ``"pixels"``, layers by name, or
            ``"head"``, the last map before pooling (of a convolutional network, local logits).

    Returns:
        Logits, bias, contributions, W(x) and the measured ``completeness_gap``; without the batch
        dimension for a single image.

    Raises:
        NotExplainableError: a layer's dynamic scale cannot be held constant, or a layer whose
            training mode mixes or drops images is in it, or the model does not run the layer
            where it is to be cut.
        ValueError: ``target`` outside ``[0, classes)`` or of the wrong length, images with NaN,
            a ``depth`` that the model does not have.
        TypeError: images or targets of the wrong type.

    Source:
        Boehle et al., CVPR 2022 (arXiv:2205.10268), section 3; attention as in TPAMI 2024
        (arXiv:2306.10898).
    """
    trace = Trace(model, images, depth)
    return trace.explain(_target(target, trace.logits))


def explain_classes(
    model: nn.Module, images: Tensor, targets: Targets = None, *, depth: str = PIXELS
) -> Iterator[Explanation]:
    """Explain several classes after one forward pass, which this call makes.

    Each step of the iterator is a backward pass. Nothing of a class is kept once the next one is
    asked for, so memory does not grow with their number. The forward pass's graph is freed with the
    last class, or with an iterator that is given up.

    Args:
        model: a B-cos model in eval mode.
        images: a batch or one, as :func:`explain` takes them.
        targets: class indices, each for all images; all classes when omitted.
        depth: where to stop, one of ``model.depths()``.

    Returns:
        An explanation per class, in the order given.

    Raises:
        NotExplainableError, ValueError, TypeError: as :func:`explain`, before the first step.
    """
    trace = Trace(model, images, depth)
    return _each(trace, _targets(targets, trace.logits))


def _each(trace: Trace, targets: list[int]) -> Iterator[Explanation]:
    """Explanations of classes, one by one; no context is open while the caller looks at one."""
    for i, place in enumerate(targets, 1):
        target = trace.logits.new_full((len(trace.logits),), place, dtype=torch.int64)
        yield trace.explain(target, keep=i < len(targets))


def _target(target: Target, logits: Tensor) -> Tensor:
    """Class index of each image, checked, ``(batch,)``."""
    batch, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    chosen = _indices("target", target, logits.device)
    if chosen.ndim == 0:
        chosen = chosen.expand(batch)
    if chosen.shape != (batch,):
        raise ValueError(f"target must be one index, or {batch}, got shape {tuple(chosen.shape)}")
    _check_range("target", chosen, classes)
    return chosen.to(torch.int64)


def _targets(targets: Targets, logits: Tensor) -> list[int]:
    """Class indices, checked."""
    classes = logits.shape[1]
    if targets is None:
        return list(range(classes))
    if not isinstance(targets, Tensor) and not len(targets):
        return []
    chosen = _indices("targets", targets, logits.device)
    if chosen.ndim != 1:
        raise ValueError(f"targets must be a sequence of indices, got shape {tuple(chosen.shape)}")
    _check_range("targets", chosen, classes)
    numbers: list[int] = chosen.tolist()
    return numbers


def _indices(name: str, given: int | Sequence[int] | Tensor, device: torch.device) -> Tensor:
    """Whole numbers as a tensor."""
    chosen = torch.as_tensor(given, device=device).detach()
    if chosen.dtype.is_floating_point or chosen.dtype == torch.bool:
        raise TypeError(f"{name} must be class indices, got {chosen.dtype}")
    return chosen


def _check_range(name: str, chosen: Tensor, classes: int) -> None:
    """Refuse classes that there are not."""
    low, high = (int(chosen.min()), int(chosen.max())) if len(chosen) else (0, 0)
    if low < 0 or high >= classes:
        raise ValueError(f"{name} must be in [0, {classes}), got {low if low < 0 else high}")
