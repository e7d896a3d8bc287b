"""Pixels of one plane turned into an image of another scale, with sub-pixel geometry.

Where a whole number of pixels makes one and the first starts on a pixel, the result is their exact
mean (:func:`mean_blocks`): no filter is closer, and none as quick. Everywhere else the filter is
Pillow's, stretched over the pixels that fall into one output pixel, so nothing aliases. Measured on
dense H&E against the exact mean over each output pixel's area, starting on and between pixels (mean
absolute difference in grey levels):

======== ============ ============ ============ ============ ============
scale    mean         Hamming      bilinear     bicubic      Lanczos
======== ============ ============ ============ ============ ============
1.1                   2.1          0.5          1.6          2.4
1.98                  0.8          2.0          1.7          2.9
2        0 on pixels  0.5 to 1.2   0.3 to 3.8   1.5 to 1.9   2.5 to 3.2
4        0 on pixels  0.7 to 1.4   3.0 to 4.4   2.2 to 2.7   3.8 to 3.9
======== ============ ============ ============ ============ ============

Pillow's box filter counts whole pixels only: 0.4 off when a box starts on a pixel, 8.2 when it
starts between two. Hence Hamming from 1.5 down, which has no negative lobes either and so no
rings around nuclei, and bilinear above and when enlarging.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

REDUCING = 1.5
STRIP = 2**16  # numbers summed at once, few enough for the processor's own cache


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


def mean_blocks(
    pixels: NDArray[np.uint8], across: int, down: int | None = None
) -> NDArray[np.uint8]:
    """Mean over blocks of ``down`` rows and ``across`` columns, halves to even.

    Args:
        pixels: ``(h, w, c)``; what does not fill a block is cut.
        across: pixels along x that make one.
        down: pixels along y that make one; ``across`` when omitted.
    """
    down = across if down is None else down
    height, width, channels = pixels.shape[0] // down, pixels.shape[1] // across, pixels.shape[2]
    cut = pixels[: height * down, : width * across].reshape(height, down, width * across * channels)
    # Whole sums, so that nothing but the last division rounds; 16 bits where they suffice, and
    # then the 24 bits of a short float hold them too.
    small = 255 * across * down < 2**16
    whole = np.uint16 if small else np.uint32 if 255 * across * down < 2**32 else np.uint64
    real = np.float32 if small else np.float64
    out = np.empty((height, width, channels), np.uint8)
    rows_at_once = max(1, STRIP // max(1, cut.shape[2]))
    for top in range(0, height, rows_at_once):
        strip = cut[top : top + rows_at_once]
        rows = np.empty((len(strip), cut.shape[2]), whole)
        _sum([strip[:, i] for i in range(down)], rows)
        columns = rows.reshape(len(rows), width, across, channels)
        total = np.empty((len(rows), width, channels), whole)
        for channel in range(channels):  # long strided loops; three neighbours at a time are slow
            _sum([columns[:, :, i, channel] for i in range(across)], total[..., channel])
        means = np.divide(total, across * down, dtype=real)
        out[top : top + rows_at_once] = np.rint(means, out=means)
    return out


def _sum(parts: list[NDArray[Any]], out: NDArray[Any]) -> None:
    """Add arrays up, in as few passes over memory as there can be."""
    if len(parts) == 1:
        out[:] = parts[0]
        return
    np.add(parts[0], parts[1], out=out, dtype=out.dtype)
    for part in parts[2:]:
        out += part
