"""Exact attribution of a logit to pixels by the model's own effective linear map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcos_vit.explain.explanation import Explanation
from bcos_vit.explain.mode import check_explainable
from bcos_vit.layers.mode import explanation_mode

Target = int | Sequence[int] | Tensor | None


def explain(model: nn.Module, images: Tensor, target: Target = None) -> Explanation:
    """Take a logit of each image apart into contributions of its pixels.

    The model computes ``logit = <W(x), x> + bias``; a pixel's contribution is its share of the sum.
    One forward and one backward pass for the whole batch. ``images`` and ``model`` are left as they
    were, under exceptions too; calls may nest and run in several threads at once. Autocast is
    switched off: contributions in half precision do not add up.

    Args:
        model: a B-cos model in eval mode.
        images: ``(batch, channels, height, width)``, or one image ``(channels, height, width)``.
        target: class index for all images, or one per image; each image's predicted class when
            omitted.

    Returns:
        Logits, bias, contributions, W(x) and the measured ``completeness_gap``; without the batch
        dimension for a single image.

    Raises:
        NotExplainableError: a layer's dynamic scale cannot be held constant, or a layer whose
            training mode mixes or drops images is in it.
        ValueError: ``target`` outside ``[0, classes)`` or of the wrong length, images with NaN.
        TypeError: images or targets of the wrong type.

    Source:
        Boehle et al., CVPR 2022 (arXiv:2205.10268), section 3; attention as in TPAMI 2024
        (arXiv:2306.10898).
    """
    check_explainable(model)
    if images.ndim not in (3, 4):
        raise ValueError(f"images must have 3 or 4 dimensions, got shape {tuple(images.shape)}")
    if not images.dtype.is_floating_point:
        raise TypeError(f"images must be floating point, got {images.dtype}")
    if not torch.isfinite(images).all():
        raise ValueError("images hold NaN or infinite values; nothing can be attributed to them")
    single = images.ndim == 3
    with torch.inference_mode(False), torch.autocast(images.device.type, enabled=False):
        x = (images[None] if single else images).detach().clone().requires_grad_()
        gates = {name: x.new_ones(len(x), requires_grad=True) for name in _constant_terms(model)}
        with torch.enable_grad(), explanation_mode(gates):
            logits: Tensor = model(x)
        if logits.ndim != 2:
            raise ValueError(f"the model must return (batch, classes), got {tuple(logits.shape)}")
        chosen = _targets(target, logits.detach())
        explained = logits.gather(1, chosen[:, None]).sum()
        weights, *terms = torch.autograd.grad(
            explained, [x, *gates.values()], materialize_grads=True
        )
        constants = dict(zip(gates, terms, strict=True))
        explanation = Explanation(
            logits=logits.detach(),
            target=chosen,
            bias=constants.pop("bias", logits.new_zeros(len(x)).detach()),
            weights=weights,
            contributions=(x.detach() * weights).sum(1),
            constants=constants,
        )
        return explanation[0] if single else explanation


def _constant_terms(model: nn.Module) -> list[str]:
    """Names of the constants that the model's layers add, each once, in order."""
    names = (name for module in model.modules() for name in getattr(module, "constant_terms", ()))
    return list(dict.fromkeys(names))


def _targets(target: Target, logits: Tensor) -> Tensor:
    """Class index of each image, checked, ``(batch,)``."""
    batch, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    chosen = torch.as_tensor(target, device=logits.device).detach()
    if chosen.dtype.is_floating_point or chosen.dtype == torch.bool:
        raise TypeError(f"target must be class indices, got {chosen.dtype}")
    if chosen.ndim == 0:
        chosen = chosen.expand(batch)
    if chosen.shape != (batch,):
        raise ValueError(f"target must be one index, or {batch}, got shape {tuple(chosen.shape)}")
    low, high = (int(chosen.min()), int(chosen.max())) if batch else (0, 0)
    if low < 0 or high >= classes:
        raise ValueError(f"target must be in [0, {classes}), got {low if low < 0 else high}")
    return chosen.to(torch.int64, copy=True)  # never the caller's own tensor
