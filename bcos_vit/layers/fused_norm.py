"""Norms by PyTorch's own kernels, whose gradients know what explaining holds constant.

The same numbers as the formulas of :mod:`bcos_vit.layers.norm`, up to rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.kernels import passes
from bcos_vit.layers.fast import differentiable_again, needs_formula
from bcos_vit.layers.mode import held, is_explaining

Plain = Callable[[Tensor, Tensor], Tensor]


def layer_norm(x: Tensor, weight: Tensor, eps: float, plain: Plain) -> Tensor:
    """``weight * (x - mean) / sqrt(var + eps)`` over the last dimension.

    Args:
        x: ``(..., dim)``.
        weight: ``(dim,)``.
        eps: added to the variance.
        plain: the same by the plain formula.
    """
    if is_explaining() and x.requires_grad and torch.is_grad_enabled():
        y: Tensor = _HeldLayerNorm.apply(x, weight.detach(), eps)
        return y
    weight = held(weight)
    if torch.is_grad_enabled() and weight.requires_grad:
        y = _LayerNorm.apply(x, weight, eps, plain)
        return y
    return F.layer_norm(x, (x.shape[-1],), weight, None, eps)


def group_norm(x: Tensor, weight: Tensor, groups: int, eps: float, plain: Plain) -> Tensor:
    """The same over ``groups`` of channels of a feature map, and all places."""
    # With channels last, PyTorch's sums on CPUs lose digits.
    x = x.contiguous()
    if is_explaining() and x.requires_grad and torch.is_grad_enabled():
        y: Tensor = _HeldGroupNorm.apply(x, weight.detach(), groups, eps)
        return y
    weight = held(weight)
    if torch.is_grad_enabled() and weight.requires_grad:
        y = _GroupNorm.apply(x, weight, groups, eps, plain)
        return y
    return F.group_norm(x, groups, weight, None, eps)


class _LayerNorm(torch.autograd.Function):
    """PyTorch's own but for the gradient of the weight, whose sum loses less."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, plain: Plain) -> Tensor:
        y, mean, inverse = torch.native_layer_norm(x, (x.shape[-1],), weight, None, eps)
        ctx.plain = plain
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        if needs_formula(grads[0]):
            wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
            dx, dw = differentiable_again(ctx.plain, (x, weight), wanted, grads[0])
            return dx, dw, None, None
        return *passes.layer_norm_back(grads[0], x, weight, mean, inverse), None, None


class _GroupNorm(torch.autograd.Function):
    """Likewise."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, groups: int, eps: float, plain: Plain
    ) -> Tensor:
        size = (x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
        y, mean, inverse = torch.native_group_norm(x, weight, None, *size, groups, eps)
        ctx.plain, ctx.size, ctx.groups = plain, size, groups
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        if needs_formula(grads[0]):
            wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
            dx, dw = differentiable_again(ctx.plain, (x, weight), wanted, grads[0])
            return dx, dw, None, None, None
        dy = grads[0].contiguous()
        dx, _, _ = torch.ops.aten.native_group_norm_backward(
            dy, x, mean, inverse, weight, *ctx.size, ctx.groups, [True, False, False]
        )
        grouped = x.unflatten(1, (ctx.groups, -1))
        unit = (grouped - mean[:, :, None, None, None]).mul_(inverse[:, :, None, None, None])
        return dx, passes.products(dy, unit.flatten(1, 2)), None, None, None


class _HeldLayerNorm(torch.autograd.Function):
    """The standard deviation is a constant, the mean is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, _, inverse = torch.native_layer_norm(x, (x.shape[-1],), weight, None, eps)
        ctx.save_for_backward(weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight, inverse = ctx.saved_tensors
        native = not needs_formula(grads[0])
        return passes.centre(grads[0], weight, inverse, native=native), None, None


class _HeldGroupNorm(torch.autograd.Function):
    """The standard deviation is a constant, the mean is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
        batch, chans = x.shape[:2]
        places = x.shape[2] * x.shape[3]
        y, _, inverse = torch.native_group_norm(x, weight, None, batch, chans, places, groups, eps)
        ctx.save_for_backward(weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        weight, inverse = ctx.saved_tensors
        native = not needs_formula(grads[0])
        return passes.centre(grads[0], weight, inverse, native=native), None, None, None


def batch_norm(x: Tensor, weight: Tensor, eps: float, plain: Plain) -> tuple[Tensor, Tensor]:
    """``weight * x / sqrt(var + eps)`` by the batch's own biased variance per channel.

    Args:
        x: ``(batch, chans, height, width)``.
        weight: ``(chans,)``.
        eps: added to the variance.
        plain: the same by the plain formula.

    Returns:
        Output, and the variance, which has no gradient.
    """
    y, var = _BatchNorm.apply(passes.dense(x), weight, eps, plain)
    return y, var


class _BatchNorm(torch.autograd.Function):
    """Holds the input and two numbers per channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, plain: Plain
    ) -> tuple[Tensor, Tensor]:
        mean, var = passes.statistics(x)
        inverse = (var + eps).rsqrt()
        ctx.plain = plain
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(var)
        return x * (weight * inverse)[:, None, None], var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        if needs_formula(grads[0]):
            dx, dw = differentiable_again(ctx.plain, (x, weight), wanted, grads[0])
            return dx, dw, None, None
        dy = passes.dense(grads[0], x)
        products = passes.products(dy, x)
        b = -weight * products * inverse.pow(3) / (x.numel() // x.shape[1])
        dx = passes.affine(dy, x, weight * inverse, b, mean) if wanted[0] else None
        dw = products * inverse
        return dx, dw if wanted[1] else None, None, None
