"""CIELAB of batches, forth and back, fast enough for every tile of a slide.

The numbers are scikit-image's (D65, two degrees), which a test holds them to; kornia's functions
give the same in four times the time on a CPU: general powers, and choices between two curves, cost
more there than a logarithm and an exponential.
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

# Below these, curves are straight lines of these slopes.
DARK_RGB, DARK_LINEAR, SLOPE_RGB = 0.04045, 0.0031308, 12.92
DARK_XYZ, DARK_ROOT, SLOPE_XYZ = 0.008856, 0.2068966, 7.787


def rgb_to_lab(images: Tensor) -> Tensor:
    """Images in sRGB, ``(n, 3, height, width)`` in [0, 1], to L*, a* and b*."""
    linear = _power(images.clamp(min=DARK_RGB).add_(0.055).div_(1.055), 2.4)
    linear.add_(images.clamp(max=DARK_RGB).sub_(DARK_RGB).div_(SLOPE_RGB))
    matrix = images.new_tensor(RGB_TO_XYZ) / images.new_tensor(WHITE)[:, None]
    xyz = mix(linear, matrix[None])
    root = _power(xyz.clamp(min=DARK_XYZ), 1 / 3)
    root.add_(xyz.clamp_(max=DARK_XYZ).sub_(DARK_XYZ).mul_(SLOPE_XYZ))
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """L*, a* and b* to sRGB; what no screen shows lies outside of [0, 1]."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    root = torch.stack([y + a / 500, y, (y - b / 200).clamp_(min=0)], dim=1)
    bright = root.clamp(min=DARK_ROOT)
    xyz = bright.square().mul_(bright)
    xyz.add_(root.clamp_(max=DARK_ROOT).sub_(DARK_ROOT).div_(SLOPE_XYZ))
    matrix = lab.new_tensor(RGB_TO_XYZ).double().cpu().inverse() * torch.tensor(WHITE).double()
    linear = mix(xyz, matrix[None].to(lab.device, lab.dtype))
    images = _power(linear.clamp(min=DARK_LINEAR), 1 / 2.4).mul_(1.055).sub_(0.055)
    return images.add_(linear.clamp_(max=DARK_LINEAR).sub_(DARK_LINEAR).mul_(SLOPE_RGB))


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
    """Positive values to a power; writes over them."""
    return values.log_().mul_(exponent).exp_()
