"""Pixels of one plane turned into an image of another scale, with sub-pixel geometry.

The filter is Pillow's, stretched over the pixels that fall into one output pixel, so nothing
aliases. Measured on dense H&E against the exact mean over each output pixel's area, starting on
and between pixels (mean absolute difference in grey levels):

======== ============ ============ ============ ============
scale    Hamming      bilinear     bicubic      Lanczos
======== ============ ============ ============ ============
1.1      2.1          0.5          1.6          2.4
1.98     0.8          2.0          1.7          2.9
2        0.5 to 1.2   0.3 to 3.8   1.5 to 1.9   2.5 to 3.2
4        0.7 to 1.4   3.0 to 4.4   2.2 to 2.7   3.8 to 3.9
======== ============ ============ ============ ============

Pillow's box filter counts whole pixels only: 0.4 off when a box starts on a pixel, 8.2 when it
starts between two. Hence Hamming from 1.5 down, which has no negative lobes either and so no
rings around nuclei, and bilinear above and when enlarging.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

REDUCING = 1.5


def margin(ratio: float) -> int:
    """Pixels the filter reaches beyond a box, at ``ratio`` of them per output pixel."""
    return math.ceil(max(1.0, ratio)) + 1


def resample(
    pixels: NDArray[np.uint8], box: tuple[float, float, float, float], width: int, height: int
) -> NDArray[np.uint8]:
    """The part of an image under a real-valued box, as ``width x height`` pixels.

    Args:
        pixels: ``(h, w, 3)``; what lies around the box is used by the filter where there is any.
        box: left, top, right, bottom in pixels of ``pixels``.
        width: output pixels along x.
        height: output pixels along y.
    """
    left, top, right, bottom = box
    ratio = min((right - left) / width, (bottom - top) / height)
    kernel = Image.Resampling.HAMMING if ratio >= REDUCING else Image.Resampling.BILINEAR
    image = Image.fromarray(pixels).resize((width, height), kernel, box=box)
    return np.asarray(image)


def mean_blocks(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean over ``factor x factor`` pixels, rounded; what does not fill a block is cut."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    cut = pixels[: height * factor, : width * factor]
    blocks = cut.reshape(height, factor, width, factor, -1)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3), dtype=np.float64)
    return np.rint(means).astype(np.uint8)
