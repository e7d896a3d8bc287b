"""What an image without information looks like: the named fillings of perturbed pixels.

Methods that remove pixels need something in their place, and methods that compare with a baseline
need an image that says nothing. No choice is right for every network and tissue, so both name
theirs, and both mean the same image by the same name. All are RGB images in [0, 1]; they are
encoded afterwards, like any image.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.stain_space import StainSpace

Filling = Literal["black", "white", "glass", "mean", "blur"]

LIGHTEST = 220 / 255
"""Pixels at least this light in every colour count as glass."""

_BLUR = 1 / 8


def check_filling(name: str) -> None:
    """Refuse a name that is none.

    Raises:
        ValueError: it is no :data:`Filling`.
    """
    if name not in get_args(Filling):
        raise ValueError(f"filling must be one of {get_args(Filling)}, got {name!r}")


def fill(name: str, images: Tensor) -> Tensor:
    """Images in which nothing of ``images`` is left but what the filling keeps.

    ========= ==================================================================================
    filling   every pixel becomes
    ========= ==================================================================================
    black     0
    white     1
    glass     the mean colour of the image's own background, the pixels lighter than 220 of 255;
              the customary 240 of 255 where it has none
    mean      the mean colour of the image: what is left is how strongly it is stained
    blur      the mean of its surroundings, a Gaussian of an eighth of the shorter side, edges
              mirrored: what is left is where tissue is, without any nucleus
    ========= ==================================================================================

    Args:
        name: a :data:`Filling`.
        images: ``(n, 3, h, w)`` in [0, 1].

    Returns:
        ``(n, 3, h, w)``, of the same type.

    Raises:
        ValueError: an unknown name.
    """
    check_filling(name)
    if name == "black":
        return torch.zeros_like(images)
    if name == "white":
        return torch.ones_like(images)
    if name == "blur":
        return _blurred(images)
    colours = images.mean((2, 3), keepdim=True) if name == "mean" else _glass(images)
    return colours.expand_as(images).contiguous()


def _glass(images: Tensor) -> Tensor:
    """``(n, 3, 1, 1)`` colour of each image's background."""
    is_glass = (images >= LIGHTEST).all(1, keepdim=True)
    count = is_glass.sum((2, 3), keepdim=True)
    mean = (images * is_glass).sum((2, 3), keepdim=True) / count.clamp_min(1)
    customary = images.new_tensor(StainSpace().white)[:, None, None]
    return torch.where(count > 0, mean, customary)


def _blurred(images: Tensor) -> Tensor:
    """Images behind a wide Gaussian."""
    sigma = min(images.shape[-2:]) * _BLUR
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float64)
    bell = torch.exp(-0.5 * (offsets / sigma) ** 2)
    bell = (bell / bell.sum()).to(images.dtype)
    kernel = bell.expand(images.shape[1], 1, -1)
    wide = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    wide = F.conv2d(wide, kernel[:, :, None], groups=images.shape[1])
    y: Tensor = F.conv2d(wide, kernel[..., None], groups=images.shape[1])
    return y.clamp(0, 1)  # sums of weights are 1 up to rounding
