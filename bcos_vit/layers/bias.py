"""The biases of conventional networks, which no pixel owns: told apart while explaining.

A module with a bias keeps it as ``bias`` and says how much of it is added in ``bias_share``, which
conversion to B-cos takes from 1 to 0. With nothing added there is no constant to tell apart.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.layers.mode import constant, held, is_explaining

TERM = "biases"
"""What all biases inside a network together are called in an explanation's ``constants``."""


def make_bias(module: Any, size: int | None) -> None:
    """Give ``module`` a bias of ``size`` zeros, or none, before its first forward pass."""
    module.bias = None if size is None else nn.Parameter(torch.zeros(size))
    set_bias_share(module, 1.0)


def set_bias_share(module: Any, share: float) -> None:
    """Let ``module`` add this share of its bias, in [0, 1]."""
    module.bias_share = share
    module.constant_terms = (TERM,) if module.bias is not None and share else ()


def add_bias(y: Tensor, bias: Tensor | None, share: float, dim: int = -1) -> Tensor:
    """``y + share * bias`` along dimension ``dim`` of ``y`` ``(batch, ...)``."""
    # At share 0 it is added while training all the same: parameters without any gradient stop
    # DistributedDataParallel.
    if bias is None or (not share and (is_explaining() or not torch.is_grad_enabled())):
        return y
    shape = [1] * y.ndim
    shape[dim] = len(bias)
    return y + constant(TERM, (held(bias) * share).reshape(shape).to(y.dtype))
