"""A convolution and the norm behind it, in one pass where that is the same.

In evaluation, uncentred batch norm multiplies every channel by a number: that of the running
variance. A B-cos convolution has such a number anyhow, one over the length of its filter.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from bcos_vit.layers.bias import add_bias
from bcos_vit.layers.conv import BcosConv2d
from bcos_vit.layers.fast import fast
from bcos_vit.layers.mode import is_explaining
from bcos_vit.layers.norm import BcosBatchNorm2d


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))``.

    Args:
        conv: a convolution.
        norm: the norm behind it.
        x: ``(batch, in_chans, height, width)``.
    """
    y: Tensor
    if not _one_pass(conv, norm, x):
        y = norm(conv(x))
        return y
    assert isinstance(norm, BcosBatchNorm2d)
    y = conv(x, gain=norm.running_scale())
    return add_bias(y, norm.bias, norm.bias_share, dim=1)


def _one_pass(conv: nn.Module, norm: nn.Module, x: Tensor) -> bool:
    """Whether nobody can tell: nothing learns, and nobody looks in between."""
    return (
        type(conv) is BcosConv2d
        and type(norm) is BcosBatchNorm2d
        and conv.b == 2
        and conv.bias is None
        and not norm.training
        and (is_explaining() or not torch.is_grad_enabled())
        and fast(x, conv.weight, norm.weight, norm.running_var)
        and not (_watched(conv) or _watched(norm))
    )


def _watched(module: nn.Module) -> bool:
    """Whether hooks see what the module takes or returns."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
        torch_module._global_backward_hooks,
        torch_module._global_backward_pre_hooks,
    )
    return any(hooks)
