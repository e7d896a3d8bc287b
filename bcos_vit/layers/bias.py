"""The biases of conventional networks, which no pixel owns: told apart while explaining.

A module with a bias keeps it as ``bias`` and says how much of it is added in ``bias_share``, which
conversion to B-cos takes from 1 to 0.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.layers.mode import constant, held

TERM = "biases"
"""What all biases inside a network together are called in an explanation's ``constants``."""


def make_bias(module: Any, size: int | None) -> None:
    """Give ``module`` a bias of ``size`` zeros, or none, before its first forward pass."""
    module.bias = None if size is None else nn.Parameter(torch.zeros(size))
    module.bias_share = 1.0
    if size is not None:
        module.constant_terms = (TERM,)


def add_bias(y: Tensor, bias: Tensor | None, share: float, dim: int = -1) -> Tensor:
    """``y + share * bias`` along dimension ``dim`` of ``y`` ``(batch, ...)``."""
    if bias is None or not share:
        return y
    shape = [1] * y.ndim
    shape[dim] = len(bias)
    return y + constant(TERM, (held(bias) * share).reshape(shape).to(y.dtype))
