"""CIELAB of batches, forth and back, fast enough for every tile of a slide.

The numbers are scikit-image's (D65, two degrees), which a test holds them to; kornia's functions
give the same at a fourth of the speed on a CPU, as general powers cost much more than a logarithm
and an exponential.
"""

import torch
from torch import Tensor

# Linear sRGB to XYZ, and the white of D65 that XYZ is divided by.
RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)

# Below these, curves are straight lines.
DARK_RGB, DARK_LINEAR = 0.04045, 0.0031308
DARK_XYZ, DARK_ROOT = 0.008856, 0.2068966
SLOPE, OFFSET = 7.787, 16 / 116


def rgb_to_lab(images: Tensor) -> Tensor:
    """Images in sRGB, ``(n, 3, height, width)`` in [0, 1], to L*, a* and b*."""
    line = images / 12.92
    linear = torch.where(images > DARK_RGB, _power((images + 0.055) / 1.055, 2.4), line)
    matrix = images.new_tensor(RGB_TO_XYZ) / images.new_tensor(WHITE)[:, None]
    xyz = mix(linear, matrix[None])
    root = torch.where(xyz > DARK_XYZ, _power(xyz, 1 / 3), SLOPE * xyz + OFFSET)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """L*, a* and b* to sRGB; what no screen shows lies outside of [0, 1]."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    root = torch.stack([y + a / 500, y, (y - b / 200).clamp(min=0)], dim=1)
    xyz = torch.where(root > DARK_ROOT, root * root * root, (root - OFFSET) / SLOPE)
    matrix = lab.new_tensor(RGB_TO_XYZ).double().inverse() * lab.new_tensor(WHITE).double()
    linear = mix(xyz, matrix.to(lab.dtype)[None])
    curve = 1.055 * _power(linear, 1 / 2.4) - 0.055
    return torch.where(linear > DARK_LINEAR, curve, 12.92 * linear)


def mix(channels: Tensor, matrices: Tensor) -> Tensor:
    """``(n, i, h, w)`` channels by ``(n or 1, o, i)`` matrices to ``(n, o, h, w)``.

    By hand: a matrix product could be rounded to ten bits by TF32.
    """
    columns = matrices[:, :, :, None, None].unbind(2)
    mixed = channels[:, :1] * columns[0]
    for i in range(1, len(columns)):
        mixed.addcmul_(channels[:, i : i + 1], columns[i])
    return mixed


def _power(values: Tensor, exponent: float) -> Tensor:
    """``values ** exponent`` where they are positive, something finite elsewhere."""
    return values.clamp(min=1e-6).log_().mul_(exponent).exp_()
