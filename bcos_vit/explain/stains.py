"""Contributions in stain space, split exactly into stains.

Every channel of :mod:`bcos_vit.stain_space` is a sum of stain amounts, so a pixel's contribution,
linear in the channels, is a sum over stains: the amount of a stain times the weights of all
channels that hold it, its own and the two complements of the others.
"""

import torch
from torch import Tensor

from bcos_vit.explain.explanation import Explanation
from bcos_vit.explain.trace import PIXELS
from bcos_vit.stain_space import STAINS, others


def split_stains(explanation: Explanation, images: Tensor) -> dict[str, Tensor]:
    """Take contributions apart into those of haematoxylin, eosin and the residual.

    Args:
        explanation: of one image or a batch.
        images: the images explained, in stain space, ``(batch, 6, height, width)`` or without
            ``batch``.

    Returns:
        By stain, ``(batch, height, width)`` contributions in logits; they sum to
        ``explanation.contributions``, and are exactly 0 on glass.

    Raises:
        ValueError: an explanation at a depth; images of another shape than the weights; other
            images than those explained, or not in stain space.
    """
    if explanation.depth != PIXELS:
        raise ValueError(
            f"stains can be told apart in pixels, not at depth {explanation.depth!r} of a model"
        )
    weights = explanation.weights
    if images.shape != weights.shape or images.shape[-3] != 6:
        raise ValueError(
            "images must be those explained, six channels in stain space; got shape"
            f" {tuple(images.shape)} for weights of {tuple(weights.shape)}"
        )
    amounts = images.detach()[..., :3, :, :]
    own, complement = weights.split(3, dim=-3)
    parts = amounts * (own + others(complement))
    # A dozen roundings, each of the size of what is added.
    size = (amounts.abs() * (own.abs() + others(complement.abs()))).sum(-3)
    gap = (parts.sum(-3) - explanation.contributions).abs()
    # Images may have been encoded in float32 and widened.
    eps = max(torch.finfo(kind).eps for kind in (weights.dtype, torch.float32))
    if not (gap <= 16 * eps * size).all():
        raise ValueError(
            "the stains do not sum to the explanation's contributions: these are not the images"
            " explained, or they are not in stain space"
        )
    return dict(zip(STAINS, parts.unbind(-3), strict=True))
