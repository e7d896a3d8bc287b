"""The dynamic scale ``|cos|^(b-1)``, written once for linear and convolutional layers.

Boehle et al., "B-cos Networks: Alignment is All We Need for Interpretability", CVPR 2022
(arXiv:2205.10268): ``B-cos(x; w) = |cos(x, w)|^(b-1) * w_hat^T x`` with ``w_hat = w / |w|``.
"""

import torch
from torch import Tensor

from bcos_vit.layers.mode import held

# Below this a cosine's power has no usable slope (b < 2 has an infinite one at 0).
_MIN_COSINE = 1e-6


def check_exponent(b: float) -> float:
    """``b`` itself.

    Raises:
        ValueError: ``b`` is below 1, where the layer would prefer misaligned inputs.
    """
    if not b >= 1:
        raise ValueError(f"b must be at least 1, got {b}")
    return float(b)


def check_units(max_out: int, unit_norm: bool) -> None:
    """Refuse a number of units that makes no sense.

    Raises:
        ValueError: ``max_out`` below 1, or above 1 for weights that keep their length, where the
            largest response would be that of the longest weight.
    """
    if max_out < 1:
        raise ValueError(f"max_out must be at least 1, got {max_out}")
    if max_out > 1 and not unit_norm:
        raise ValueError(f"max_out must be 1 where weights keep their length, got {max_out}")


def weight_length(weight: Tensor) -> Tensor:
    """``|w|`` of every output row or filter, ``(out,)``, at least a tiny positive number."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    norm = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=wide)
    return norm.clamp_min(torch.finfo(wide).tiny ** 0.5)


def unit_norm(weight: Tensor) -> Tensor:
    """``weight`` with every output row or filter scaled to length 1; ``(out, ...)`` in and out."""
    norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    return weight / norm.clamp_min(torch.finfo(weight.dtype).tiny)


def max_out_units(linear: Tensor, max_out: int, dim: int) -> Tensor:
    """The largest of each ``max_out`` neighbouring units along ``dim`` (output-major order)."""
    if max_out == 1:
        return linear
    return linear.unflatten(dim, (-1, max_out)).max(dim=dim + 1 if dim >= 0 else dim).values


def apply_scale(linear: Tensor, norm: Tensor, b: float) -> Tensor:
    """``|linear / norm|^(b-1) * linear``; the first factor is constant while explaining.

    Args:
        linear: ``w_hat^T x``.
        norm: ``|x|``, positive, broadcastable to ``linear``, float32 or wider.
        b: the exponent, at least 1.

    Returns:
        Same shape and dtype as ``linear``.
    """
    if b == 1:
        return linear
    cosine = linear.abs() / norm
    scale = cosine if b == 2 else cosine.clamp_min(_MIN_COSINE).pow(b - 1)
    return linear * held(scale).to(linear.dtype)
