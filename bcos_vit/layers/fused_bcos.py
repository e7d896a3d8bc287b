"""B-cos layers at ``b = 2`` in few passes over memory, holding little for the backward pass.

With ``u = w^T x`` and ``f = |w|^-2`` (``|w|^-1`` for weights that keep their length) a layer
computes ``y = f u |u| / |x|``, see :mod:`bcos_vit.layers.scale`. Weights are not made unit vectors:
their length is a number per channel. The backward pass needs neither ``u`` nor the cosines, as
``|u| = sqrt(|y| |x| / f)``: beside the input and ``|x|``, a number per patch, only ``y`` is held,
which the next layer holds as its input anyhow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.kernels import passes
from bcos_vit.kernels.passes import Window
from bcos_vit.layers.fast import differentiable_again, needs_formula
from bcos_vit.layers.mode import is_explaining

Plain = Callable[..., Tensor]

_FEW = 16
"""Channels of a convolution's input that PyTorch's gradient is slow for."""
_CACHED_BYTES, _LEAST_ROWS = 4 << 20, 2048
"""What is in between two layers at a time, about what a core has of the caches for itself; and rows
that a product of matrices needs to be fast, which take more in wide layers."""


@dataclass(frozen=True, slots=True)
class ConvShape:
    """How a convolution walks over its input."""

    rows: Window
    columns: Window
    groups: int

    @property
    def pointwise(self) -> bool:
        """Whether it is a linear layer at every place."""
        alone = (self.rows, self.columns) == (Window(1), Window(1))
        return alone and self.groups == 1

    @property
    def coarse(self) -> bool:
        """Whether it steps over the input, alike in both directions."""
        same = self.rows == self.columns and self.rows.dilation == self.groups == 1
        return same and 1 < self.rows.stride <= self.rows.kernel

    @property
    def pairs(self) -> tuple[list[int], list[int], list[int]]:
        """Stride, padding and dilation, as PyTorch takes them."""
        both = (self.rows, self.columns)
        return [w.stride for w in both], [w.pad for w in both], [w.dilation for w in both]


@dataclass(frozen=True, slots=True)
class Form:
    """What a layer is, apart from its input and weights.

    Args:
        plain: the same by the plain formula, ``(x, weight)`` to output.
        eps: added to lengths, or to their squares before the root.
        eps_inside: whether before the root.
        unit_norm: whether weights count as if of unit length.
        conv: how it walks; None for a linear layer.
    """

    plain: Plain
    eps: float
    eps_inside: bool
    unit_norm: bool
    conv: ConvShape | None = None

    @property
    def groups(self) -> int:
        return 1 if self.conv is None else self.conv.groups

    def respond(self, x: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """``w^T x``, dense; a linear layer's into ``out`` where given."""
        if self.conv is None:
            return torch.mm(x, weight.t(), out=out) if out is not None else F.linear(x, weight)
        stride, pad, dilation = self.conv.pairs
        groups = self.conv.groups
        return passes.dense(F.conv2d(x, weight, None, stride, pad, dilation, groups))

    def inverse_norm(self, x: Tensor, like: Tensor, inlet: Tensor | None) -> Tensor:
        """``1 / |inlet x|`` of every patch or token; a map in the layout of ``like``."""
        if self.conv is None:
            squares = passes.squares(x, gains=inlet)
            if self.eps_inside:
                return squares.add_(self.eps).rsqrt_()
            return squares.sqrt_().add_(self.eps).reciprocal_()
        conv = self.conv
        inverse = passes.inverse_norm(
            passes.dense(x), conv.rows, conv.columns, conv.groups, self.eps, inlet
        )
        return passes.dense(inverse, like)

    def norm_back(self, place_sums: Tensor, inverse: Tensor, x: Tensor) -> Tensor:
        """What ``x`` is multiplied by in the part of its gradient that comes through its length."""
        # A linear layer's is 1 / (|x| + eps) twice, not once 1 / |x|: alike but for tiny tokens.
        along = (place_sums * inverse).mul_(inverse).neg_()
        if self.conv is None:
            return along
        size = (x.shape[2], x.shape[3])
        return passes.dense(passes.box_back(along, self.conv.rows, self.conv.columns, size), x)

    def respond_back(
        self, du: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of ``x`` and ``weight`` in :meth:`respond`."""
        if self.conv is None:
            return (du @ weight if wanted[0] else None, du.t() @ x if wanted[1] else None)
        if not wanted[1] and du.device.type == "cpu":
            # PyTorch is slow on CPUs where it is the input's gradient alone, as in explanations.
            if self.conv.pointwise and du.is_contiguous():
                return torch.matmul(weight.flatten(1).t(), du.flatten(2)).view(x.shape), None
            if self.conv.coarse and weight.shape[1] <= _FEW:
                return _coarse_back(du, weight, self.conv, (x.shape[2], x.shape[3])), None
        stride, pad, dilation = self.conv.pairs
        dx, dw, _ = torch.ops.aten.convolution_backward(
            du, x, weight, None, stride, pad, dilation, False, [0, 0], self.conv.groups,
            [*wanted, False],
        )  # fmt: skip
        return dx, dw


def _coarse_back(du: Tensor, weight: Tensor, conv: ConvShape, size: tuple[int, int]) -> Tensor:
    """Gradient of the input of a strided convolution of few channels, as a convolution of its own.

    Positions of one phase of the stride are channels of a small image; on CPUs that is faster than
    what PyTorch does for so few channels.
    """
    stride, pad = conv.rows.stride, conv.rows.pad
    kernel = conv.rows.kernel + -conv.rows.kernel % stride
    filters = F.pad(weight, (0, kernel - weight.shape[3], 0, kernel - weight.shape[2]))
    phases = F.pixel_unshuffle(filters, stride).flip(2, 3).transpose(0, 1)
    padded = F.pixel_shuffle(F.conv2d(du, phases, padding=kernel // stride - 1), stride)
    # What no patch reached has no gradient.
    missing = [most + pad - made for most, made in zip(size, padded.shape[2:], strict=True)]
    if max(missing) > 0:
        padded = F.pad(padded, (0, max(missing[1], 0), 0, max(missing[0], 0)))
    return padded[:, :, pad : pad + size[0], pad : pad + size[1]]


def bcos(
    x: Tensor,
    weight: Tensor,
    form: Form,
    gain: Tensor | None = None,
    inlet: Tensor | None = None,
) -> Tensor:
    """The whole layer at ``b = 2``, without bias.

    Args:
        x: ``(tokens, in_features)``, or ``(batch, in_chans, height, width)``.
        weight: of the layer, as it stores them.
        form: what the layer is; :func:`bcos_vit.layers.fast.fast` must hold for both tensors.
        gain: ``(out,)``, multiplies the output; a constant.
        inlet: ``(in,)``, multiplies the input; a constant, for one group of channels.

    With constants, weights get no gradient.
    """
    held = is_explaining() or gain is not None or inlet is not None
    weight = weight.detach() if held else weight
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        y: Tensor
        y = _HeldBcos.apply(x, weight, form, gain, inlet) if held else _Bcos.apply(x, weight, form)
        return y
    return forward(x, weight, form, gain, inlet).y


class Made(NamedTuple):
    """What a forward pass makes."""

    y: Tensor
    inverse: Tensor
    """One over the norms of patches."""
    length: Tensor
    """One over the lengths of filters."""
    weight: Tensor
    """What the input meets."""
    scale: Tensor | None
    """What responses were multiplied by, if kept."""


def inverse_length(weight: Tensor) -> Tensor:
    """One over the length of every filter, ``(out,)``."""
    length = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return length.clamp_min_(torch.finfo(weight.dtype).tiny ** 0.5).reciprocal_()


def forward(
    x: Tensor,
    weight: Tensor,
    form: Form,
    gain: Tensor | None = None,
    inlet: Tensor | None = None,
    keep: bool = False,
    length: Tensor | None = None,
    out: Tensor | None = None,
) -> Made:
    """The layer, not differentiable; see :func:`bcos`."""
    length = inverse_length(weight) if length is None else length
    if inlet is not None:
        weight = weight * inlet.reshape(-1, *[1] * (weight.ndim - 2))
    y = form.respond(x, weight, out)
    inverse = form.inverse_norm(x, y, inlet)
    unit = length if form.unit_norm else torch.ones_like(length)
    scale = passes.scale_(y, unit if gain is None else unit * gain, length, inverse, keep)
    return Made(y, inverse, length, weight, scale)


def back(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    inverse: Tensor,
    length: Tensor,
    form: Form,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and weights while training, from what :func:`forward` made."""
    x, dy = passes.dense(x), passes.dense(dy, y)
    root = length if form.unit_norm else length.sqrt()
    du, place_sums, chan_sums = passes.scale_back(dy, y, root, inverse)
    dx, dw = form.respond_back(du, x, weight, wanted)
    if dx is not None:
        dx = passes.dense(dx, x)
        passes.add_scaled_(dx, x, form.norm_back(place_sums, inverse, x))
    if dw is not None:
        power = 2 if form.unit_norm else 1
        along = chan_sums * length * length * -power
        dw.addcmul_(along.reshape(-1, *[1] * (weight.ndim - 1)), weight)
    return dx, dw


def two_layers(x: Tensor, first: Tensor, second: Tensor, form: Form) -> Tensor:
    """Two linear layers on top of each other, without gradient.

    Some rows at a time, so that little is in between and, in narrow layers, stays in the cache.

    Args:
        x: ``(rows, in)``.
        first: weights ``(hidden, in)``.
        second: weights ``(out, hidden)``.
        form: of both.
    """
    lengths = inverse_length(first), inverse_length(second)
    y = x.new_empty(len(x), len(second))
    step = max(_LEAST_ROWS, _CACHED_BYTES // (len(first) * x.element_size()))
    step *= torch.get_num_threads()
    for part, out in zip(x.split(step), y.split(step), strict=True):
        hidden = forward(part, first, form, length=lengths[0]).y
        forward(hidden, second, form, length=lengths[1], out=out)
    return y


class _Bcos(torch.autograd.Function):
    """For training: holds input, output and the norms of patches."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, form: Form) -> Tensor:
        made = forward(x, weight, form)
        ctx.form = form
        ctx.save_for_backward(x, weight, made.y, made.inverse, made.length)
        return made.y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, y, inverse, length = ctx.saved_tensors
        form: Form = ctx.form
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        if needs_formula(grads[0]):
            dx, dw = differentiable_again(form.plain, (x, weight), wanted, grads[0])
        else:
            dx, dw = back(grads[0], x, weight, y, inverse, length, form, wanted)
        return dx, dw, None


class _HeldBcos(torch.autograd.Function):
    """For explaining: weights and scale are constants; holds the scale."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        form: Form,
        gain: Tensor | None,
        inlet: Tensor | None,
    ) -> Tensor:
        made = forward(x, weight, form, gain, inlet, keep=True)
        ctx.form, ctx.size, ctx.last = form, x.shape, x.ndim == 4 and not x.is_contiguous()
        ctx.save_for_backward(made.weight, made.scale)
        return made.y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        weight, scale = ctx.saved_tensors
        # Its values are not read: a convolution's gradient asks for the input's shape and layout.
        x = torch.empty(
            ctx.size,
            dtype=weight.dtype,
            device=weight.device,
            memory_format=torch.channels_last if ctx.last else torch.contiguous_format,
        )
        dx, _ = ctx.form.respond_back(grads[0] * scale, x, weight, (True, False))
        return dx, None, None, None, None
