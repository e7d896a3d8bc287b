"""From an RGB image to the six channels ``[r, g, b, 1-r, 1-g, 1-b]`` in [0, 1], and back.

The complement lets a B-cos network see dark pixels: direction encodes colour, and every pixel's
vector has a length that hardly depends on brightness (Boehle et al., CVPR 2022, arXiv:2205.10268).
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]; floating point images are checked and returned.

    Raises:
        ValueError: values outside [0, 1], or NaN.
        TypeError: neither uint8 nor floating point.
    """
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    if not images.dtype.is_floating_point:
        raise TypeError(f"images must be uint8 or floating point, got {images.dtype}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"floating point images must lie in [0, 1], got [{low:g}, {high:g}]")
    return images


def add_complement(images: Tensor) -> Tensor:
    """``(..., 3, height, width)`` in [0, 1] to ``(..., 6, height, width)``."""
    return torch.cat([images, 1 - images], dim=-3)


def remove_complement(images: Tensor) -> Tensor:
    """The RGB part of six-channel images."""
    return images[..., :3, :, :]


def to_bcos(image: Image.Image | np.ndarray, size: int | None = None) -> Tensor:
    """One image ready for a B-cos model.

    Args:
        image: Pillow image, or ``(height, width, 3)`` uint8 array.
        size: side in pixels to resize to (bicubic, antialiased); as it is when omitted.

    Returns:
        ``(6, height, width)`` float32 in [0, 1].
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return add_complement(to_unit_range(pixels))
