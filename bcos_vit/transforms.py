"""From RGB images to a network's channels, by the name of their encoding, and back.

The complement, ``[r, g, b, 1-r, 1-g, 1-b]`` in [0, 1], lets a B-cos network see dark pixels:
direction encodes colour, and every pixel's vector has a length that hardly depends on brightness
(Boehle et al., CVPR 2022, arXiv:2205.10268). In stain space the length is how much stain there is.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcos_vit.encodings import channels
from bcos_vit.stain_space import StainSpace


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


def encode(
    images: Tensor, encoding: str = "complement", stain_space: StainSpace | None = None
) -> Tensor:
    """RGB images to the channels of ``encoding``, see :mod:`bcos_vit.encodings`.

    Args:
        images: ``(..., 3, height, width)``, uint8 or floating point in [0, 1].
        encoding: ``"complement"``, ``"rgb"`` (in [0, 1], not yet normalised) or ``"stain"``.
        stain_space: stains and glass, for ``"stain"`` only; :class:`StainSpace`'s when omitted.

    Returns:
        ``(..., channels, height, width)``; float32 for uint8, else of the images' type.

    Raises:
        ValueError: an unknown encoding, a stain space for another one, images that are not RGB or
            outside [0, 1].
        TypeError: images neither uint8 nor floating point.
    """
    channels(encoding)  # known at all
    if stain_space is not None and encoding != "stain":
        raise ValueError(f'a stain space goes with encoding "stain", got one with {encoding!r}')
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(f"images must be (..., 3, height, width), got {tuple(images.shape)}")
    light = to_unit_range(images)
    if encoding == "stain":
        return (stain_space or StainSpace()).encode(light)
    return add_complement(light) if encoding == "complement" else light


def to_bcos(
    image: Image.Image | np.ndarray,
    size: int | None = None,
    encoding: str = "complement",
    stain_space: StainSpace | None = None,
) -> Tensor:
    """One image ready for a B-cos model.

    Args:
        image: Pillow image, or ``(height, width, 3)`` uint8 array.
        size: side in pixels to resize to (bicubic, antialiased); as it is when omitted.
        encoding: as in :func:`encode`; a model's is ``model.encoding``.
        stain_space: as in :func:`encode`.

    Returns:
        ``(channels, height, width)`` float32.

    Raises:
        ValueError: an unknown encoding, a stain space for another one.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return encode(pixels, encoding, stain_space)
