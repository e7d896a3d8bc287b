"""The passes themselves: each by a C kernel where there is one for the tensors, else by PyTorch.

Tensors are ``(batch, channels, height, width)`` feature maps, contiguous or channels last, or
tokens ``(..., channels)``, contiguous. Channels come in groups, each with its own map of norms,
``(batch, groups, height, width)`` or ``(..., groups)``. Nothing here is differentiable; see
:mod:`bcos_vit.layers.fused_bcos` and :mod:`bcos_vit.layers.fused_norm`.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.kernels.build import library

_CHUNK, _TILE = 32, 1024  # as in kernels.c
_NULL = ctypes.c_void_p(None)
REALS = {torch.float32: "float", torch.float64: "double"}


@dataclass(frozen=True, slots=True)
class Window:
    """Which places a filter sees along one axis, as in ``torch.nn.Conv2d``."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    pad: int = 0

    @property
    def alone(self) -> bool:
        """Whether each place is seen by itself."""
        return self.kernel == 1 and not self.pad

    def made(self, size: int) -> int:
        """Places that it makes of ``size``."""
        return (size + 2 * self.pad - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a tensor lies in memory: ``planes`` (outer, chans, places), or rows (places, chans)."""

    planes: bool
    outer: int
    chans: int
    places: int

    @classmethod
    def of(cls, x: Tensor) -> "_Shape":
        """Of a dense feature map (four dimensions) or of tokens."""
        if x.ndim == 4 and x.is_contiguous():
            return cls(True, x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
        if x.ndim == 4:
            return cls(False, 1, x.shape[1], x.shape[0] * x.shape[2] * x.shape[3])
        return cls(False, 1, x.shape[-1], x.shape[:-1].numel())


def dense(x: Tensor, like: Tensor | None = None) -> Tensor:
    """``x``, in the layout of ``like`` or its own, without gaps."""
    if x.ndim != 4:
        return x.contiguous()
    last = torch.channels_last
    if like is None:
        if x.is_contiguous() or x.is_contiguous(memory_format=last):
            return x
        return x.contiguous()
    return x.contiguous() if like.is_contiguous() else x.contiguous(memory_format=last)


def _kernel(name: str, x: Tensor) -> Callable[..., None] | None:
    """A C kernel by name, taking tensors and numbers; None where there is none for ``x``."""
    real = REALS.get(x.dtype)
    if real is None or x.device.type != "cpu" or (found := library(real)) is None:
        return None
    function = getattr(found, name)

    def run(*arguments: Any) -> None:
        function(*map(_argument, arguments), ctypes.c_int(torch.get_num_threads()))

    return run


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous() or value.is_contiguous(memory_format=torch.channels_last)
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else value


def _grouped(x: Tensor, groups: int) -> Tensor:
    """A group of channels as dimension 2 of maps, the last of tokens."""
    return x.unflatten(1 if x.ndim == 4 else -1, (groups, -1))


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """A map of a value per group, as a view with a channel dimension to broadcast."""
    return values.unsqueeze(2 if like.ndim == 4 else -1)


def _channels(values: Tensor, like: Tensor, groups: int) -> Tensor:
    """A value per channel, in the shape of :func:`_grouped` channels."""
    grouped = values.unflatten(0, (groups, -1))
    return grouped[..., None, None] if like.ndim == 4 else grouped


def squares(x: Tensor, groups: int = 1, gains: Tensor | None = None) -> Tensor:
    """Sum of squares over the channels of each group: a map.

    Args:
        x: feature map or tokens.
        groups: of channels.
        gains: per channel, multiplies ``x`` first; for one group.
    """
    if groups == x.shape[1 if x.ndim == 4 else -1]:
        return x.square() if gains is None else (x * _channels(gains, x, 1)[0]).square()
    x = dense(x)
    shape = _Shape.of(x)
    kernel = _kernel("squares_planes" if shape.planes else "squares_rows", x)
    if kernel is None:
        x = x if gains is None else x * _channels(gains, x, 1)[0]
        return _grouped(x, groups).square().sum(2 if x.ndim == 4 else -1)
    chans = shape.chans // groups
    if x.ndim != 4:
        sums = x.new_empty(*x.shape[:-1], groups)
    else:
        layout = torch.contiguous_format if shape.planes else torch.channels_last
        size = (x.shape[0], groups, *x.shape[2:])
        sums = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    given = (x, _NULL if gains is None else gains.contiguous(), sums)
    if shape.planes:
        kernel(*given, shape.outer * groups, chans, shape.places)
    else:
        kernel(*given, shape.places * groups, chans)
    return sums


class _Axis(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("kernel", "stride", "dilation", "pad", "size", "out")]


def _axis(window: Window, size: int) -> Any:
    made = window.made(size)
    fields = (window.kernel, window.stride, window.dilation, window.pad, size, made)
    return ctypes.byref(_Axis(*fields))


def inverse_norm(
    x: Tensor,
    rows: Window,
    columns: Window,
    groups: int,
    eps: float,
    gains: Tensor | None = None,
) -> Tensor:
    """``1 / sqrt(squares + eps)`` of what a convolution sees at each place, group by group.

    Args:
        x: dense feature map.
        rows: what it sees along the height,
        columns: and along the width.
        groups: of channels.
        eps: added to the sum of squares.
        gains: as for :func:`squares`.

    Returns:
        ``(batch, groups, height', width')``, dense in the layout of ``x``.
    """
    if rows.alone and columns.alone:
        squared = squares(x, groups, gains)[..., :: rows.stride, :: columns.stride]
        return dense(squared, x).add(eps).rsqrt_()
    kernel = _kernel("inverse_norm", x)
    if kernel is None:
        sums = squares(x, groups, gains)
        for window, dim in ((rows, 2), (columns, 3)):
            sums = _box_along(sums, window, dim)
        return dense(sums, x).add_(eps).rsqrt_()
    alone = groups == x.shape[1] and gains is None
    values = x if alone else squares(x, groups, gains)
    height, width = x.shape[2:]
    size = (x.shape[0], groups, rows.made(height), columns.made(width))
    planes = x.is_contiguous()
    layout = torch.contiguous_format if planes else torch.channels_last
    inverse = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    maps, inner = (x.shape[0] * groups, 1) if planes else (x.shape[0], groups)
    axes = (_axis(rows, height), _axis(columns, width))
    kernel(values, inverse, maps, inner, *axes, int(alone), ctypes.c_double(eps))
    return inverse


def _box_along(x: Tensor, window: Window, dim: int) -> Tensor:
    """Sums over the places each filter sees along one axis."""
    pads = [0, 0, window.pad, window.pad] if dim == 2 else [window.pad, window.pad]
    made = window.made(x.shape[dim])
    x = F.pad(x, pads)
    total = None
    for k in range(window.kernel):
        start = k * window.dilation
        part = x.narrow(dim, start, (made - 1) * window.stride + 1)
        part = part[:, :, :: window.stride] if dim == 2 else part[..., :: window.stride]
        total = part if total is None else total + part
    assert total is not None
    return total


def box_back(x: Tensor, rows: Window, columns: Window, size: tuple[int, int]) -> Tensor:
    """Every place's number added to all places that its filter saw: maps of ``size``."""
    if rows.alone and columns.alone and rows.stride == columns.stride == 1:
        return x
    x = dense(x)
    planes = x.is_contiguous()
    height, width = size
    layout = torch.contiguous_format if planes else torch.channels_last
    kernel = _kernel("box_back", x)
    if kernel is None:
        for window, dim in ((rows, 2), (columns, 3)):
            x = _box_back_along(x, window, dim, size[dim - 2])
        return x
    shape = (*x.shape[:2], height, width)
    sums = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    maps, inner = (x.shape[0] * x.shape[1], 1) if planes else x.shape[:2]
    kernel(x, sums, maps, inner, _axis(rows, height), _axis(columns, width))
    return sums


def _box_back_along(x: Tensor, window: Window, dim: int, size: int) -> Tensor:
    """One axis of :func:`box_back`."""
    shape = list(x.shape)
    made, shape[dim] = shape[dim], size + 2 * window.pad
    padded = x.new_zeros(shape)
    for k in range(window.kernel):
        seen = padded.narrow(dim, k * window.dilation, (made - 1) * window.stride + 1)
        seen = seen[:, :, :: window.stride] if dim == 2 else seen[..., :: window.stride]
        seen += x
    return padded.narrow(dim, window.pad, size)


def scale_(
    u: Tensor, gain: Tensor, length: Tensor, inverse: Tensor, keep: bool = False
) -> Tensor | None:
    """``u := gain u |u| length inverse``, in place.

    Args:
        u: dense, responses.
        gain: per channel,
        length: per channel, positive.
        inverse: per group, one over the norms, dense in the layout of ``u``.
        keep: whether to return what ``u`` was multiplied by.
    """
    shape = _Shape.of(u)
    groups = inverse.shape[1 if u.ndim == 4 else -1]
    kernel = _kernel("scale_planes" if shape.planes else "scale_rows", u)
    if kernel is None:
        scale = _grouped(u, groups).abs().mul_(_channels(length, u, groups))
        scale.mul_(_spread(inverse, u)).mul_(_channels(gain, u, groups))
        scale = scale.view_as(u) if u.ndim != 4 else scale.flatten(1, 2)
        u.mul_(scale)
        return scale if keep else None
    kept = torch.empty_like(u) if keep else None
    sizes = (groups, shape.chans // groups, shape.places)
    given = (u, _NULL if kept is None else kept, gain, length, inverse)
    if shape.planes:
        kernel(*given, shape.outer, *sizes)
    else:
        kernel(*given, *sizes)
    return kept


def scale_back(
    dy: Tensor, y: Tensor, root: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``y = root^2 u |u| inverse``.

    Args:
        dy: gradient of ``y``, dense in the layout of ``y``.
        y: dense.
        root: per channel, positive.
        inverse: per group, as for :func:`scale_`.

    Returns:
        The gradient of ``u``, and the sums of ``dy y`` over the channels of each group (a map) and
        over all places (per channel).
    """
    shape = _Shape.of(y)
    groups = inverse.shape[1 if y.ndim == 4 else -1]
    kernel = _kernel("scale_back_planes" if shape.planes else "scale_back_rows", y)
    chan_dim = 2 if y.ndim == 4 else -1
    if kernel is None:
        products = _grouped(dy * y, groups)
        place_sums = products.sum(chan_dim)
        others = (
            [d for d in range(products.ndim) if d not in (1, 2)]
            if y.ndim == 4
            else list(range(products.ndim - 2))
        )
        chan_sums = products.sum(others).flatten()
        du = _grouped(y.abs(), groups).mul_(_spread(inverse, y)).sqrt_()
        du.mul_(_channels(2 * root, y, groups))
        du = du.view_as(y) if y.ndim != 4 else du.flatten(1, 2)
        return du.mul_(dy), place_sums, chan_sums
    du, place_sums = torch.empty_like(y), torch.empty_like(inverse)
    tile = _TILE if shape.planes else _CHUNK
    tiles = shape.outer * -(-shape.places // tile)
    chan_sums = y.new_empty(tiles, shape.chans)
    given = (dy, y, root, inverse, du, place_sums, chan_sums)
    sizes = (groups, shape.chans // groups, shape.places)
    if shape.planes:
        kernel(*given, shape.outer, *sizes)
    else:
        kernel(*given, *sizes)
    return du, place_sums, chan_sums.sum(0)


def add_scaled_(y: Tensor, x: Tensor, factor: Tensor) -> None:
    """``y += factor x`` in place, ``factor`` per group; all dense, in one layout."""
    shape = _Shape.of(y)
    groups = factor.shape[1 if y.ndim == 4 else -1]
    kernel = _kernel("add_planes" if shape.planes else "add_rows", y)
    if groups == shape.chans:
        y.addcmul_(factor, x)
    elif kernel is None:
        _grouped(y, groups).addcmul_(_grouped(x, groups), _spread(factor, y))
    elif shape.planes:
        kernel(y, x, factor, shape.outer * groups, shape.chans // groups, shape.places)
    else:
        kernel(y, x, factor, shape.places * groups, shape.chans // groups)


def affine(g: Tensor, x: Tensor, a: Tensor, b: Tensor, k: Tensor) -> Tensor:
    """``a g + b (x - k)`` with numbers per channel; feature maps, dense, in one layout."""
    shape = _Shape.of(x)
    kernel = _kernel("affine_planes" if shape.planes else "affine_rows", x)
    if kernel is None:
        wide = (each[:, None, None] for each in (a, b, k))
        a, b, k = wide
        return (x - k).mul_(b).addcmul_(g, a)
    y = torch.empty_like(x)
    if shape.planes:
        kernel(g, x, y, a, b, k, shape.outer, shape.chans, shape.places)
    else:
        kernel(g, x, y, a, b, k, shape.places, shape.chans)
    return y


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of a dense feature map."""
    shape = _Shape.of(x)
    kernel = _kernel("statistics_planes" if shape.planes else "statistics_rows", x)
    if kernel is None:
        # With channels last, PyTorch's sums on CPUs lose three digits.
        if x.device.type not in ("cpu", "cuda", "xpu"):
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            return mean, var
        x = x.contiguous() if x.device.type == "cpu" else x
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        return mean, var
    mean, var = x.new_empty(shape.chans), x.new_empty(shape.chans)
    if shape.planes:
        kernel(x, mean, var, shape.outer, shape.chans, shape.places)
    else:
        kernel(x, mean, var, shape.chans, shape.places)
    return mean, var


def products(g: Tensor, x: Tensor) -> Tensor:
    """Sum of ``g x`` over all places, per channel; feature maps, dense, in one layout."""
    shape = _Shape.of(x)
    kernel = _kernel("products_planes" if shape.planes else "products_rows", x)
    if kernel is None:
        return (g * x).sum((0, 2, 3))
    sums = x.new_empty(shape.chans)
    if shape.planes:
        kernel(g, x, sums, shape.outer, shape.chans, shape.places)
    else:
        kernel(g, x, sums, shape.chans, shape.places)
    return sums


def centre(g: Tensor, weight: Tensor, scale: Tensor, *, native: bool = True) -> Tensor:
    """``(g w - mean(g w)) scale``, the gradient of a norm whose scale is a constant.

    Args:
        g: tokens ``(..., channels)``, each with its own mean; or a feature map, each group of
            channels with its own.
        weight: per channel.
        scale: ``(..., 1)``, or ``(batch, groups)``.
        native: whether kernels may be used; PyTorch's operations can be differentiated.
    """
    weight = weight.contiguous()
    if g.ndim != 4 or scale.ndim != 2:
        g = g.contiguous()
        kernel = _kernel("centre_rows", g) if native else None
        if kernel is None:
            weighted = g * weight
            return (weighted - weighted.mean(-1, keepdim=True)) * scale
        y = torch.empty_like(g)
        kernel(g, weight, scale, y, g.shape[:-1].numel(), g.shape[-1])
        return y
    g, groups = g.contiguous(), scale.shape[1]
    kernel = _kernel("centre_planes", g) if native else None
    if kernel is None:
        weighted = (g * weight[:, None, None]).unflatten(1, (groups, -1))
        centred = weighted - weighted.mean((2, 3, 4), keepdim=True)
        return (centred * scale[:, :, None, None, None]).flatten(1, 2)
    y = torch.empty_like(g)
    kernel(g, weight, scale, y, len(g), groups, g.shape[1] // groups, g.shape[2] * g.shape[3])
    return y


def layer_norm_back(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight of a layer norm, from ``(..., 1)`` means and inverse roots."""
    dy, x, weight = dy.contiguous(), x.contiguous(), weight.contiguous()
    kernel = _kernel("layer_norm_back", x)
    if kernel is None:
        size = x.shape[-1:]
        dx, _, _ = torch.ops.aten.native_layer_norm_backward(
            dy, x, size, mean, inverse, weight, None, [True, False, False]
        )
        return dx, ((x - mean).mul_(inverse).mul_(dy)).flatten(0, -2).sum(0)
    rows, chans = x.shape[:-1].numel(), x.shape[-1]
    dx, dw = torch.empty_like(x), x.new_empty(-(-rows // _CHUNK), chans)
    kernel(dy, x, weight, mean, inverse, dx, dw, rows, chans)
    return dx, dw.sum(0)


def turn(x: Tensor, sines: Tensor, cosines: Tensor, turned: int, in_place: bool = False) -> Tensor:
    """Pairs of neighbouring numbers, turned by the angle of their place.

    Args:
        x: ``(batch, places, width)``, contiguous.
        sines: ``(places, pairs)`` of the angles of one head; heads repeat them.
        cosines: likewise.
        turned: how many numbers at the start of each row are turned, a multiple of ``2 pairs``.
        in_place: whether to overwrite ``x``.
    """
    y = x if in_place else torch.empty_like(x)
    pairs = sines.shape[-1]
    kernel = _kernel("turn_rows", x)
    if kernel is not None:
        rows, width = x.shape[:-1].numel(), x.shape[-1]
        kernel(x, y, cosines, sines, rows, len(sines), width, turned, pairs)
        return y
    if not in_place:
        y[..., turned:] = x[..., turned:]
    numbers = x[..., :turned].unflatten(-1, (-1, pairs, 2))
    first, second = numbers[..., 0], numbers[..., 1]
    sines, cosines = sines[:, None], cosines[:, None]
    turned_numbers = (first * cosines - second * sines, second * cosines + first * sines)
    y[..., :turned] = torch.stack(turned_numbers, -1).flatten(-3)
    return y
