"""B-cos layers as operators that ``torch.compile`` calls as they are, on CPUs.

Most of the formulas the compiler fuses well. Two it does not, which take the fast forms instead:
convolutions of each channel by itself, whose patch norms are maps as large as the output; and two
layers on top of each other in inference, of which it would store what is in between. On other
devices, in half precision and without kernels, all formulas are left to it.
"""

from typing import Any

import torch
from torch import Tensor

from bcos_vit.kernels.build import library
from bcos_vit.kernels.passes import REALS, Window
from bcos_vit.layers.fast import plain
from bcos_vit.layers.fused_bcos import ConvShape, Form, back, forward, two_layers
from bcos_vit.layers.mode import is_explaining


def traceable(*tensors: Tensor) -> bool:
    """Whether the operators should stand in for formulas: while compiling for a CPU.

    An explanation's formulas are left to the compiler.
    """
    first = tensors[0]
    return (
        torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not is_explaining()
        and not plain.get()
        and first.device.type == "cpu"
        and first.dtype in REALS
        and all(t.dtype == first.dtype for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and _has_kernels(REALS[first.dtype])
    )


@torch.compiler.assume_constant_result
def _has_kernels(real: str) -> bool:
    return library(real) is not None


def bcos_operator(
    x: Tensor,
    weight: Tensor,
    form: Form,
    gain: Tensor | None = None,
    inlet: Tensor | None = None,
) -> Tensor:
    """As :func:`bcos_vit.layers.fused_bcos.bcos`; :func:`traceable` must hold for the tensors."""
    numbers = _numbers(form)
    y: Tensor
    if torch.is_grad_enabled():
        y, _, _ = _trained(x, weight, *numbers)
    else:
        y = _applied(x, weight, gain, inlet, *numbers)
    return y


# --- forms as numbers ---------------------------------------------------------------------------


def _numbers(form: Form) -> tuple[list[int], float, bool, bool]:
    shape: list[int] = []
    if form.conv is not None:
        for window in (form.conv.rows, form.conv.columns):
            shape += [window.kernel, window.stride, window.dilation, window.pad]
        shape.append(form.conv.groups)
    return shape, form.eps, form.eps_inside, form.unit_norm


def _form(shape: list[int], eps: float, eps_inside: bool, unit_norm: bool) -> Form:
    conv = None
    if shape:
        conv = ConvShape(Window(*shape[:4]), Window(*shape[4:8]), shape[8])
    return Form(_unused, eps, eps_inside, unit_norm, conv)


def _unused(*_: Tensor) -> Tensor:
    raise NotImplementedError("compiled graphs have no second derivatives")


def _made_like(x: Tensor, weight: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Empty tensors in shape and layout of the output and of the norms."""
    if form.conv is None:
        return x.new_empty(len(x), len(weight)), x.new_empty(len(x), 1)
    size = (form.conv.rows.made(x.shape[2]), form.conv.columns.made(x.shape[3]))
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    y, inverse = (
        torch.empty((len(x), chans, *size), dtype=x.dtype, device=x.device, memory_format=layout)
        for chans in (len(weight), form.groups)
    )
    return y, inverse


def _laid(made: Tensor, x: Tensor) -> Tensor:
    """``made``, in the layout that :func:`_made_like` promises."""
    if made.ndim != 4 or x.is_contiguous():
        return made.contiguous()
    return made.contiguous(memory_format=torch.channels_last)


# --- training -------------------------------------------------------------------------------------


@torch.library.custom_op("bcos_vit::bcos", mutates_args=())
def _trained(
    x: Tensor, weight: Tensor, shape: list[int], eps: float, eps_inside: bool, unit_norm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    made = forward(x, weight, _form(shape, eps, eps_inside, unit_norm))
    return _laid(made.y, x), _laid(made.inverse, x), made.length


@_trained.register_fake
def _(
    x: Tensor, weight: Tensor, shape: list[int], eps: float, eps_inside: bool, unit_norm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y, inverse = _made_like(x, weight, _form(shape, eps, eps_inside, unit_norm))
    return y, inverse, x.new_empty(len(weight))


@torch.library.custom_op("bcos_vit::bcos_back", mutates_args=())
def _trained_back(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    inverse: Tensor,
    length: Tensor,
    shape: list[int],
    eps: float,
    eps_inside: bool,
    unit_norm: bool,
    wanted: list[bool],
) -> tuple[Tensor, Tensor]:
    form = _form(shape, eps, eps_inside, unit_norm)
    dx, dw = back(dy, x, weight, y, inverse, length, form, (wanted[0], wanted[1]))
    nothing = x.new_empty(0)
    return (
        nothing if dx is None else _laid(dx, x),
        nothing.clone() if dw is None else dw.contiguous(),
    )


@_trained_back.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    inverse: Tensor,
    length: Tensor,
    shape: list[int],
    eps: float,
    eps_inside: bool,
    unit_norm: bool,
    wanted: list[bool],
) -> tuple[Tensor, Tensor]:
    dx = _laid(torch.empty_like(x), x) if wanted[0] else x.new_empty(0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return dx, dw if wanted[1] else x.new_empty(0)


def _setup_trained(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, *ctx.numbers = inputs
    ctx.save_for_backward(x, weight, *output)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate_trained(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [bool(need) for need in ctx.needs_input_grad[:2]]
    dx, dw = _trained_back(grads[0], *ctx.saved_tensors, *ctx.numbers, wanted)
    return (dx if wanted[0] else None, dw if wanted[1] else None, *[None] * 4)


_trained.register_autograd(_differentiate_trained, setup_context=_setup_trained)


# --- inference ------------------------------------------------------------------------------------


@torch.library.custom_op("bcos_vit::applied_bcos", mutates_args=())
def _applied(
    x: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    inlet: Tensor | None,
    shape: list[int],
    eps: float,
    eps_inside: bool,
    unit_norm: bool,
) -> Tensor:
    return _laid(forward(x, weight, _form(shape, eps, eps_inside, unit_norm), gain, inlet).y, x)


@_applied.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    inlet: Tensor | None,
    shape: list[int],
    eps: float,
    eps_inside: bool,
    unit_norm: bool,
) -> Tensor:
    return _made_like(x, weight, _form(shape, eps, eps_inside, unit_norm))[0]


@torch.library.custom_op("bcos_vit::two_bcos", mutates_args=())
def _two_applied(
    x: Tensor, first: Tensor, second: Tensor, eps: float, eps_inside: bool, unit_norm: bool
) -> Tensor:
    return two_layers(x, first, second, _form([], eps, eps_inside, unit_norm))


@_two_applied.register_fake
def _(
    x: Tensor, first: Tensor, second: Tensor, eps: float, eps_inside: bool, unit_norm: bool
) -> Tensor:
    return x.new_empty(len(x), len(second))


def two_layers_operator(x: Tensor, first: Tensor, second: Tensor, form: Form) -> Tensor:
    """As :func:`bcos_vit.layers.fused_bcos.two_layers`, likewise."""
    y: Tensor = _two_applied(x, first, second, *_numbers(form)[1:])
    return y
