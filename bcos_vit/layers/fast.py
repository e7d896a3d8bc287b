"""When the fast forms of layers apply, and the switch that turns them off.

Fast forms give the same numbers as the plain formulas, up to rounding, in fewer passes over memory
and holding less for the backward pass. They apply in float32 or float64 outside of autocast, in
PyTorch's eager mode, to plain tensors outside of function transforms. Elsewhere the plain formulas
run, as written in papers; ``torch.compile`` fuses those by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from bcos_vit.layers.mode import is_explaining, outside_explanations

plain: ContextVar[bool] = ContextVar("bcos_vit_plain", default=False)


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Keep to the plain formulas in what this thread computes inside, compiled or not.

    Where a backward pass computes activations again, it has to be made inside, too.
    """
    token = plain.set(True)
    try:
        yield
    finally:
        plain.reset(token)


def fast(*tensors: Tensor) -> bool:
    """Whether the fast forms apply to these tensors, here and now."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or plain.get():
        return False
    first = tensors[0]
    return (
        all(type(t) is Tensor or type(t) is nn.Parameter for t in tensors)
        and all(t.dtype == first.dtype and t.device == first.device for t in tensors)
        and first.dtype in (torch.float32, torch.float64)
        and first.device.type != "meta"
        and first.numel() > 0
        and not torch.is_autocast_enabled(first.device.type)
        and not torch._C._are_functorch_transforms_active()
        # Whoever watches operations (checkpoints that choose, tracers) does not see kernels.
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
    )


def needs_formula(dy: Tensor) -> bool:
    """Whether a backward pass is itself differentiated, or ``dy`` stands for several at once."""
    functorch = torch._C._functorch
    several = functorch.is_functorch_wrapped_tensor(dy) or functorch.is_legacy_batchedtensor(dy)
    return torch.is_grad_enabled() or several


def unobserved(*modules: nn.Module) -> bool:
    """Whether nothing learns, and no hook looks at what these modules take or return."""
    learns = torch.is_grad_enabled() and not is_explaining()
    return not (learns or hooked(*modules))


def hooked(*modules: nn.Module) -> bool:
    """Whether a hook looks at what one of these modules takes or returns."""
    return any(_GLOBAL_HOOKS) or any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )


_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def differentiable_again(
    formula: Callable[..., Tensor], inputs: tuple[Tensor, ...], wanted: tuple[bool, ...], dy: Tensor
) -> list[Tensor | None]:
    """Gradients of a plain formula, which can themselves be differentiated.

    Args:
        formula: the formula.
        inputs: its arguments.
        wanted: of which of them.
        dy: gradient of its output.
    """
    with outside_explanations(), plain_formulas(), torch.enable_grad():
        y = formula(*inputs)
        asked = [x for x, want in zip(inputs, wanted, strict=True) if want]
        grads = iter(torch.autograd.grad(y, asked, dy, create_graph=True))
    return [next(grads) if want else None for want in wanted]
