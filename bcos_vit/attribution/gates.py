"""A conventional network run with its gates held, so that its gradient takes it apart exactly.

Every ReLU is its input times 0 or 1, every GELU its input times ``Phi(x)``, softmax attention a
matrix, a norm a division. With these factors held constant a network is affine: each of its logits
is a sum over pixels and over the constants that the network adds (biases, position codes, tokens).

Nothing is looked up in a list of layers that may miss one. While a network runs, every operation of
PyTorch passes through :class:`Gates`, which knows of each tensor which of three it is:

========== =====================================================================================
carried    a linear function of the pixels, plus constants behind their gates
held       depends on the pixels, but only as a factor or a choice
constant   does not depend on them: whose it is, is told by the gate it is added behind
========== =====================================================================================

An operation that is not known to be linear gives something held. Held numbers may multiply and
choose; where one is added, what is made of it has no owner, and when that reaches the logits the
network is refused with the name of the operation. No module, hook or parameter is touched.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.operations import (
    ACTIVATIONS,
    CHOICES,
    LAYERS,
    LINEAR,
    MAKERS,
    PRODUCTS,
    QUESTIONS,
    SUMS,
    changes,
    name_of,
)
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain.mode import unwrapped

_ROLE, _OWNER = "_bcos_vit_role", "_bcos_vit_owner"
_TOKENS = ("cls_token", "reg_token", "register_token", "dist_token", "mask_token")
_ANSWERS = (Tensor, bool, str, type(None), torch.dtype, torch.device, torch.layout)
_POSITIONS = ("pos_embed", "pos_code", "position")


@dataclass(slots=True, eq=False)
class _Role:
    """What a tensor is in the run that made it.

    Args:
        run: stands for the :class:`Gates` that made it.
        carried: linear in the pixels; else held.
        origin: where a held one ceased to be linear.
        rule: makes the tensor that later operations see, where that waits for the next one.
        layer: what is known of a layer that waits.
    """

    run: object
    carried: bool
    origin: str = ""
    rule: Callable[[], Tensor] | None = None
    layer: Any = None


class Gates(TorchFunctionMode):
    """Runs a network with gates held; inside of ``with``, for this thread alone.

    Args:
        method: name of the method, for messages.
        classifier: what will be run.
        images: ``(n, ...)``; the first dimension of all that is carried is a multiple of n, images
            in order.
        names: what to call constants, by the names that they have here: ``position``, ``tokens``,
            ``biases``, ``mean``.

    Attributes:
        gates: ``(n,)`` ones by name; the gradient with respect to one is what it lets through.
        inlets: ``(n, c, h, w)``, what else than images relevance may flow to, pixel by pixel.
    """

    def __init__(
        self,
        method: str,
        classifier: Classifier,
        images: Tensor,
        names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.images = images
        self.gates: dict[str, Tensor] = {}
        self.inlets: list[Tensor] = []
        self._names = names or {}
        self._run = object()  # instead of self: tensors outlive no garbage collection
        self._is_encoding = False
        parts = {"": unwrapped(classifier.model), "encoding": classifier.encode}
        self._modules = {
            id(module): name
            for prefix, part in parts.items()
            for name, module in part.named_modules(prefix=prefix)
        }
        self._parameters = {
            id(each): _kind(name)
            for part in parts.values()
            for named in (part.named_parameters(), part.named_buffers())
            for name, each in named
        }

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """What runs inside is the encoding, whose constants are ``mean``."""
        self._is_encoding = True
        try:
            yield
        finally:
            self._is_encoding = False

    # --- what a tensor is ------------------------------------------------------------------------

    def carry(self, tensor: Tensor) -> Tensor:
        """``tensor`` itself, from now on linear in the pixels."""
        setattr(tensor, _ROLE, _Role(self._run, carried=True))
        return tensor

    def inlet(self, values: Tensor) -> Tensor:
        """A further input ``(n, c, h, w)`` that relevance may flow to."""
        values = self.carry(values.detach().requires_grad_())
        self.inlets.append(values)
        return values

    def wait(self, value: Tensor, layer: Any, rule: Callable[[], Tensor]) -> Tensor:
        """``value``, a layer's output without a graph, until something asks for its ``rule``."""
        setattr(value, _ROLE, _Role(self._run, True, rule=rule, layer=layer))
        return value

    def waiting_layer(self, value: Tensor) -> Any:
        """The layer whose output this is, if it waits for its rule; else None."""
        role = self._role(value)
        return role.layer if role is not None else None

    def first_layer(self, encoded: Tensor) -> None:
        """Told what the first layer takes, by those who begin behind the encoding."""

    def resolve(self, tensor: Tensor) -> Tensor:
        """What operations see of a carried tensor.

        Raises:
            UnsupportedMethodError: it is none.
        """
        role = self._role(tensor)
        if role is None:
            raise UnsupportedMethodError(
                f"{self.method}: the network's output does not depend on its input by operations"
                " that can be followed"
            )
        if not role.carried:
            raise UnsupportedMethodError(
                f"{self.method}: {role.origin} is neither linear nor a factor of something linear,"
                " so what the network adds of it belongs to no pixel"
            )
        return self.ruled(tensor)

    def _role(self, value: Any) -> _Role | None:
        role = getattr(value, _ROLE, None) if isinstance(value, Tensor) else None
        return role if role is not None and role.run is self._run else None

    def is_carried(self, value: Any) -> bool:
        """Whether it is a tensor that is linear in the pixels."""
        role = self._role(value)
        return role is not None and role.carried

    def is_held(self, value: Any) -> bool:
        """Whether it depends on the pixels and is not linear in them."""
        role = self._role(value)
        return role is not None and not role.carried

    def ruled(self, value: Any) -> Any:
        """A carried tensor by its rule, which no longer waits; anything else as it is."""
        role = self._role(value)
        if role is None or role.rule is None:
            return value
        ruled = self.carry(role.rule())
        role.rule = lambda: ruled
        return ruled

    def owned(self, value: Any, shape: Sequence[int], name: str) -> Tensor:
        """A constant behind its gate, to be added to something of ``shape``.

        Raises:
            UnsupportedMethodError: the first dimension does not stand for images.
        """
        name = self._names.get(name, name)
        if name not in self.gates:
            self.gates[name] = self.images.new_ones(len(self.images), requires_grad=True)
        each, rest = divmod(shape[0], len(self.images)) if len(shape) else (0, 1)
        if rest or not each:
            raise UnsupportedMethodError(
                f"{self.method}: {self._where()} adds a constant to a tensor of {tuple(shape)},"
                f" whose first dimension does not stand for the {len(self.images)} images"
            )
        gate = self.gates[name].repeat_interleave(each)
        gate = gate.reshape(-1, *[1] * (len(shape) - 1))
        return gate * (value.detach() if isinstance(value, Tensor) else value)

    def constant_name(self, value: Any) -> str:
        """Whose a constant is."""
        if self._is_encoding:
            return "mean"
        name = self._owner(value)
        if name is None:
            # Ours say what they add; a logit bias is a bias here.
            declared = {*getattr(self._module(), "constant_terms", ())} - {"bias"}
            name = declared.pop() if len(declared) == 1 else "biases"
        return name

    def _owner(self, value: Any) -> str | None:
        return self._parameters.get(id(value)) or getattr(value, _OWNER, None)

    # --- operations ------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = name_of(func), dict(kwargs or {})
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        values = [*_tensors(args), *_tensors(kwargs)]
        if name in QUESTIONS:
            return func(*args, **kwargs)
        if not any(self._role(value) is not None for value in values):
            return self._constant(func, args, kwargs, values)
        if "inplace" in kwargs:
            kwargs["inplace"] = False
        args, kwargs = self._prepared(name, args, kwargs)
        values = [*_tensors(args), *_tensors(kwargs)]
        if not any(self.is_carried(value) for value in values):
            return self._hold(func, args, kwargs, values)
        result = self._linear(name, func, args, kwargs)
        if result is NotImplemented:
            return self._hold(func, args, kwargs, values)
        for each in _tensors(result):
            if self._role(each) is None:
                # Without a graph (a block under no_grad) nothing is carried any more.
                setattr(each, _ROLE, _Role(self._run, each.requires_grad, self._at(name)))
        return result

    def _prepared(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Arguments as operations see them: ruled, and parameters as the constants they are.

        Raises:
            UnsupportedMethodError: a tensor with a graph that was made unseen.
        """

        def one(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if self._role(value) is not None:
                return self._seen(name, value)
            if value.requires_grad and not value.is_leaf:
                raise UnsupportedMethodError(
                    f"{self.method}: {self._where()} computes by compiled or custom code, which"
                    " cannot be followed"
                )
            return value

        return pytree.tree_map(one, args), pytree.tree_map(one, kwargs)

    def _seen(self, name: str, value: Tensor) -> Tensor:
        """A carried or held argument as an operation sees it; batch norms see layers that wait."""
        seen: Tensor = value if name == "batch_norm" else self.ruled(value)
        return seen

    def _constant(self, func: Any, args: Any, kwargs: Any, values: list[Tensor]) -> Any:
        """An operation on constants gives a constant of the same owner."""
        for value in values:
            if value.requires_grad and not value.is_leaf:
                self._prepared("", args, kwargs)
        result = func(*_detached(args), **_detached(kwargs))
        owners = {self._owner(value) for value in values} - {None}
        if len(owners) == 1:
            for each in _tensors(result):
                if id(each) not in self._parameters:
                    setattr(each, _OWNER, next(iter(owners)))
        return result

    def _hold(self, func: Any, args: Any, kwargs: Any, values: list[Tensor]) -> Any:
        """The result as a number that may multiply and choose, but not be added.

        Raises:
            UnsupportedMethodError: it is written over what is not held, or leaves PyTorch.
        """
        name = name_of(func)
        if changes(func, kwargs) and not self.is_held(args[0]):
            raise UnsupportedMethodError(
                f"{self.method}: {self._at(name)} writes over a tensor what depends on the image,"
                " which cannot be followed"
            )
        with torch.no_grad():
            result = func(*_detached(args), **_detached(kwargs))
        if not all(isinstance(each, _ANSWERS) for each in pytree.tree_leaves(result)):
            raise UnsupportedMethodError(
                f"{self.method}: {self._where()} makes a number of what depends on the image"
                f" ({name}), which cannot be followed"
            )
        if name not in MAKERS:
            roles = [self._role(value) for value in values]
            origin = next((role.origin for role in roles if role and not role.carried), "")
            for each in _tensors(result):
                if self._role(each) is None:
                    setattr(each, _ROLE, _Role(self._run, False, origin or self._at(name)))
        return result

    def _linear(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """The result where it is linear in what is carried; else ``NotImplemented``."""
        if name in LINEAR or name in CHOICES:
            rest = [*_tensors(args[1:]), *_tensors(kwargs)]
            if any(self.is_carried(value) for value in rest) or not self.is_carried(args[0]):
                return NotImplemented
            return func(args[0], *_detached(args[1:]), **_detached(kwargs))
        if name in ACTIVATIONS:
            return self.activation(func, *args, **kwargs)
        if name in PRODUCTS:
            return self.product(name, func, *args, **kwargs)
        if name in SUMS:
            return self.sum(SUMS[name], *args, **kwargs)
        rule: Callable[..., Any] | None = getattr(self, f"on_{name}", None)
        if name in LAYERS:
            rest = [*_tensors(args[1:]), *_tensors(kwargs)]
            if any(self._role(value) is not None for value in rest):
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
            gate = func(safe.clone(), *_detached(args), **_detached(kwargs)) / safe
            if name_of(func) == "relu":
                gate = (still > 0).to(x.dtype)
        return x * gate

    def product(self, name: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        """A product with one carried factor."""
        values = [*_tensors(args), *_tensors(kwargs)]
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

    # --- where we are ----------------------------------------------------------------------------

    def _at(self, name: str) -> str:
        return f"{name!r} in {self._where()}"

    def _where(self) -> str:
        module = self._module()
        if module is None:
            return "the encoding" if self._is_encoding else "the network"
        name, kind = self._modules[id(module)], type(module).__name__
        return f"layer {name!r} ({kind})" if name else f"the {kind}"

    def _module(self) -> nn.Module | None:
        """The innermost module whose forward is running, found where Python keeps it."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._modules:
                return owner
            frame = frame.f_back
        return None


def _kind(name: str) -> str:
    """Whose a parameter is by its name; all that is not told apart is a bias."""
    last = name.rsplit(".", 1)[-1]
    if any(each in last for each in _TOKENS):
        return "tokens"
    return "position" if any(each in last for each in _POSITIONS) else "biases"


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Rows that sum to one; a mask of bools says what may be attended to."""
    if mask is not None:
        mask = mask.detach()
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, float("-inf"))
        else:
            scores = scores + mask
    return scores.softmax(-1)


def _tensors(tree: Any) -> Iterator[Tensor]:
    for value in pytree.tree_leaves(tree):
        if isinstance(value, Tensor):
            yield value


def _detached(tree: Any) -> Any:
    """Tensors in it without a graph."""
    return pytree.tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, tree)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
