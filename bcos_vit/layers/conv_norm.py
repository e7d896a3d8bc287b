"""A convolution and the norms around it, in one pass where nobody can tell.

In evaluation, uncentred batch norm multiplies every channel by a number: that of its running
variance. A B-cos convolution multiplies every channel by a number anyhow, one over the length of
its filter; and a norm before it may as well multiply the few weights instead of all places.
"""

from typing import TypeGuard

from torch import Tensor, nn

from bcos_vit.layers.bias import add_bias
from bcos_vit.layers.conv import BcosConv2d
from bcos_vit.layers.fast import unobserved
from bcos_vit.layers.norm import BcosBatchNorm2d


def conv_norm(
    x: Tensor, conv: nn.Module, norm: nn.Module | None = None, *, before: nn.Module | None = None
) -> Tensor:
    """``norm(conv(before(x)))``.

    Args:
        x: ``(batch, in_chans, height, width)``.
        conv: a convolution.
        norm: behind it.
        before: a norm before it.
    """
    inlet = gain = bias = None
    if type(conv) is BcosConv2d and unobserved(conv) and conv.has_fast_form(x):
        if _is_number(before, x) and before.bias is None and conv.groups == 1:
            inlet, before = before.running_scale(), None
        if _is_number(norm, x) and conv.bias is None:
            gain, bias, norm = norm.running_scale(), norm, None
    x = x if before is None else before(x)
    y: Tensor = conv(x) if inlet is None and gain is None else conv(x, gain, inlet)
    if bias is not None:
        y = add_bias(y, bias.bias, bias.bias_share, dim=1)
    return y if norm is None else norm(y)


def _is_number(norm: nn.Module | None, x: Tensor) -> TypeGuard[BcosBatchNorm2d]:
    """Whether a norm is a number per channel."""
    return (
        type(norm) is BcosBatchNorm2d
        and not norm.training
        and unobserved(norm)
        and norm.weight.dtype == norm.running_var.dtype == x.dtype
    )
