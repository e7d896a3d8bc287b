"""A conventional network run with its gates held, so that its gradient takes it apart exactly.

Every ReLU is its input times 0 or 1, every GELU its input times ``Phi(x)``, softmax attention a
matrix, a norm a division. With these factors held constant a network is affine: each of its logits
is a sum over pixels and over the constants that the network adds (biases, position codes, tokens).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from bcos_vit.attribution.operations import (
    ACTIVATIONS,
    CHOICES,
    LAYERS,
    LINEAR,
    PRODUCTS,
    SUMS,
    changes,
    name_of,
)
from bcos_vit.attribution.tracking import Tracking, detached, tensors_of


class Gates(Tracking):
    """What each operation makes of something carried, its gates held.

    Arguments are those of :class:`~bcos_vit.attribution.tracking.Tracking`. A method ``on_NAME`` is
    the rule for PyTorch's operation of that name; it may return ``NotImplemented``.
    """

    def first_layer(self, encoded: Tensor) -> None:
        """Told what the first layer takes, by those who begin behind the encoding."""

    def linear(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """The result where it is linear in what is carried; else ``NotImplemented``."""
        if name in LINEAR or name in CHOICES:
            rest = [*tensors_of(args[1:]), *tensors_of(kwargs)]
            if any(self.is_carried(value) for value in rest) or not self.is_carried(args[0]):
                return NotImplemented
            return func(args[0], *detached(args[1:]), **detached(kwargs))
        if name in ACTIVATIONS:
            return self.activation(func, *args, **kwargs)
        if name in PRODUCTS:
            return self.product(name, func, *args, **kwargs)
        if name in SUMS:
            return self.sum(SUMS[name], *args, **kwargs)
        rule: Callable[..., Any] | None = getattr(self, f"on_{name}", None)
        if name in LAYERS:
            rest = [*tensors_of(args[1:]), *tensors_of(kwargs)]
            if any(self.is_carried(value) or self.is_held(value) for value in rest):
                return NotImplemented
            rule = rule or partial(self.convolution, func)
        return NotImplemented if rule is None else rule(*args, **kwargs)

    def activation(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """``x * gate`` with the gate ``f(x) / x``, of a function that is 0 at 0."""
        if any(self.is_carried(each) for each in (*args, *kwargs.values())):
            return NotImplemented
        with torch.no_grad():
            still = x.detach()
            tiny = torch.finfo(x.dtype).tiny ** 0.5
            # At 0, where any gate gives the same value, it is the one beside it.
            safe = torch.where(still.abs() < tiny, torch.full_like(still, tiny), still)
            gate = func(safe.clone(), *detached(args), **detached(kwargs)) / safe
            if name_of(func) == "relu":
                gate = (still > 0).to(x.dtype)
        return x * gate

    def product(self, name: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        """A product with one carried factor."""
        values = [*tensors_of(args), *tensors_of(kwargs)]
        carried = [self.is_carried(each) for each in values]
        if sum(carried) != 1:
            return NotImplemented
        if kwargs.get("rounding_mode") or ("div" in name and not self.is_carried(args[0])):
            return NotImplemented
        args, kwargs = self._only_carried(args), self._only_carried(kwargs)
        if changes(func, kwargs):  # and what it would write over may be part of a gate
            return args[0] * args[1] if "mul" in name else args[0] / args[1]
        return func(*args, **kwargs)

    def sum(self, signs: tuple[int, int], a: Any, b: Any, *, alpha: Any = 1, **_: Any) -> Any:
        """``signs[0] a + signs[1] alpha b``, of which constants go behind their gates."""
        if self.is_held(a) or self.is_held(b):
            return NotImplemented
        shape = torch.broadcast_shapes(*(_shape(each) for each in (a, b)))
        terms = [
            each if self.is_carried(each) else self.owned(each, shape, self.constant_name(each))
            for each in (a, b)
        ]
        # Never in place: what it would write over may be part of a gate.
        first = terms[0] if signs[0] > 0 else -terms[0]
        return torch.add(first, terms[1], alpha=signs[1] * alpha)

    def affine(
        self,
        apply: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        name: str,
    ) -> Tensor:
        """``apply(x, weight) + bias``, a layer with weights.

        Args:
            apply: linear in both.
            x: carried.
            weight: a constant, outputs first.
            bias: of a shape that can be added.
            name: whose the bias is.
        """
        y = apply(x, weight)
        return y if bias is None else y + self.owned(bias, y.shape, name)

    def on_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        weight, b = weight.detach(), None if bias is None else bias.detach()
        return self.affine(F.linear, x, weight, b, self.constant_name(bias))

    def convolution(
        self,
        func: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Of any dimension, transposed or not."""
        places = [1] * (x.ndim - 2)
        b = None if bias is None else bias.detach().reshape(-1, *places)

        def apply(x: Tensor, weight: Tensor) -> Tensor:
            y: Tensor = func(x, weight, None, *args, **kwargs)
            return y

        return self.affine(apply, x, weight.detach(), b, self.constant_name(bias))

    def on_batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
        **_: Any,
    ) -> Any:
        """``x * scale + shift`` of the running statistics."""
        if training or running_mean is None or running_var is None:
            return NotImplemented  # images of a batch would mix
        scale = (running_var.detach() + eps).rsqrt()
        scale = scale if weight is None else scale * weight.detach()
        shift = -running_mean.detach() * scale
        shift = shift if bias is None else shift + bias.detach()
        places = [1] * (x.ndim - 2)
        return self.channel_affine(x, scale.reshape(-1, *places), shift.reshape(-1, *places))

    def channel_affine(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """``x * scale + shift``, a batch norm."""
        y = x * scale.to(x.dtype)
        return y + self.owned(shift.to(x.dtype), y.shape, "biases")

    def on_layer_norm(
        self,
        x: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Less the mean, which is linear, over a deviation that is held."""
        dims = tuple(range(-len(normalized_shape), 0))
        centred = x - x.mean(dims, keepdim=True)
        y = centred * (centred.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
        y = y if weight is None else y * weight.detach()
        return y if bias is None else y + self.owned(bias, y.shape, self.constant_name(bias))

    def on_group_norm(
        self,
        x: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *_: Any,
    ) -> Tensor:
        """The same over groups of channels and all places."""
        grouped = x.unflatten(1, (num_groups, -1))
        dims = tuple(range(2, grouped.ndim))
        centred = grouped - grouped.mean(dims, keepdim=True)
        scale = (centred.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
        y = (centred * scale).flatten(1, 2)
        places = [1] * (x.ndim - 2)
        y = y if weight is None else y * weight.detach().reshape(-1, *places)
        if bias is None:
            return y
        return y + self.owned(bias.reshape(-1, *places), y.shape, self.constant_name(bias))

    def on_rms_norm(
        self,
        x: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:
        """Over a root mean square that is held."""
        dims = tuple(range(-len(normalized_shape), 0))
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        y = x * (x.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
        return y if weight is None else y * weight.detach()

    def on_scaled_dot_product_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """A matrix that is held times the values."""
        if is_causal or enable_gqa or dropout_p or not self.is_carried(value):
            return NotImplemented
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return self.attention(query * scale, key, value, attn_mask)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """``softmax(query key^T + mask) value``."""
        scores = query.detach() @ key.detach().transpose(-2, -1)
        return _softmax(scores, mask) @ value

    def on_pad(self, x: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Any:
        """With zeros, or with the image's own pixels."""
        if mode == "constant" and value:
            return NotImplemented
        return F.pad(x, pad, mode, value)

    def on_dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, *_: Any, **__: Any
    ) -> Any:
        """Nothing, in evaluation."""
        return NotImplemented if training and p else x.view_as(x)

    on_dropout2d = on_feature_dropout = on_alpha_dropout = on_dropout

    def on_cat(self, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Any:
        """Carried parts and constants side by side."""
        parts = self._side_by_side(tensors, dim)
        return NotImplemented if parts is None else torch.cat(parts, dim)

    on_concat = on_concatenate = on_cat

    def on_stack(self, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Any:
        """The same along a dimension of their own."""
        parts = self._side_by_side(tensors, dim)
        return NotImplemented if parts is None else torch.stack(parts, dim)

    def _side_by_side(self, tensors: Sequence[Tensor], dim: int) -> list[Tensor] | None:
        # Along the first dimension, images would no longer be in order.
        if dim in (0, -tensors[0].ndim) or any(self.is_held(each) for each in tensors):
            return None
        return [each if self.is_carried(each) else self._behind(each) for each in tensors]

    def _behind(self, constant: Tensor) -> Tensor:
        return self.owned(constant, constant.shape, self.constant_name(constant))

    def _only_carried(self, tree: Any) -> Any:
        """Everything in it that is not carried, without a graph."""

        def one(value: Any) -> Any:
            return (
                value if self.is_carried(value) or not isinstance(value, Tensor) else value.detach()
            )

        return pytree.tree_map(one, tree)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Rows that sum to one; a mask of bools says what may be attended to."""
    if mask is not None:
        mask = mask.detach()
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, float("-inf"))
        else:
            scores = scores + mask
    return scores.softmax(-1)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
