"""Whether a number depends on the pixels, and how: told of every tensor while a network runs.

========== =====================================================================================
carried    a linear function of the pixels, plus constants behind their gates
held       depends on the pixels, but only as a factor or a choice
constant   does not depend on them: whose it is, is told by the gate it is added behind
========== =====================================================================================

Nothing is looked up in a list of layers that may miss one: every operation of PyTorch passes
through :class:`Tracking`. One that is not known to be linear gives something held. Held numbers may
multiply and choose; where one is added, what is made of it has no owner, and when that reaches the
logits the network is refused with the name of the operation. No module, hook or parameter is
touched.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.names import Names
from bcos_vit.attribution.operations import MAKERS, QUESTIONS, changes, name_of
from bcos_vit.errors import UnsupportedMethodError

_ROLE, _OWNER = "_bcos_vit_role", "_bcos_vit_owner"
_ANSWERS = (Tensor, bool, str, type(None), torch.dtype, torch.device, torch.layout)


@dataclass(slots=True, eq=False)
class _Role:
    """What a tensor is in the run that made it.

    Args:
        run: stands for the :class:`Tracking` that made it.
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


class Tracking(TorchFunctionMode):
    """Runs a network and knows what its tensors are; inside of ``with``, for this thread alone.

    What an operation makes of something carried is for a subclass to say (:meth:`linear`).

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
        self._called = names or {}
        self._names = Names(classifier)
        self._run = object()  # instead of self: tensors outlive no garbage collection
        self._is_encoding = False

    def linear(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation where it is linear in what is carried; else NotImplemented."""
        raise NotImplementedError

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
        name = self._called.get(name, name)
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
            declared = {*getattr(self._names.running(), "constant_terms", ())} - {"bias"}
            name = declared.pop() if len(declared) == 1 else "biases"
        return name

    def _owner(self, value: Any) -> str | None:
        return self._names.owner(value) or getattr(value, _OWNER, None)

    # --- operations ------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = name_of(func), dict(kwargs or {})
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        values = [*tensors_of(args), *tensors_of(kwargs)]
        if name in QUESTIONS:
            return func(*args, **kwargs)
        if not any(self._role(value) is not None for value in values):
            return self._constant(func, args, kwargs, values)
        if "inplace" in kwargs:
            kwargs["inplace"] = False
        args, kwargs = self._prepared(name, args, kwargs)
        values = [*tensors_of(args), *tensors_of(kwargs)]
        if not any(self.is_carried(value) for value in values):
            return self._hold(func, args, kwargs, values)
        result = self.linear(name, func, args, kwargs)
        if result is NotImplemented:
            return self._hold(func, args, kwargs, values)
        for each in tensors_of(result):
            if self._role(each) is None:
                # Without a graph (a block under no_grad) nothing is carried any more.
                origin = "" if each.requires_grad else self._at(name)
                setattr(each, _ROLE, _Role(self._run, each.requires_grad, origin))
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
        result = func(*detached(args), **detached(kwargs))
        owners = {self._owner(value) for value in values} - {None}
        if len(owners) == 1:
            for each in tensors_of(result):
                if not self._names.is_parameter(each):
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
            result = func(*detached(args), **detached(kwargs))
        if not all(isinstance(each, _ANSWERS) for each in pytree.tree_leaves(result)):
            raise UnsupportedMethodError(
                f"{self.method}: {self._where()} makes a number of what depends on the image"
                f" ({name}), which cannot be followed"
            )
        if name not in MAKERS:
            roles = [self._role(value) for value in values]
            origin = next((role.origin for role in roles if role and not role.carried), "")
            for each in tensors_of(result):
                if self._role(each) is None:
                    setattr(each, _ROLE, _Role(self._run, False, origin or self._at(name)))
        return result

    def _at(self, name: str) -> str:
        return f"{name!r} in {self._where()}"

    def _where(self) -> str:
        module = self._names.running()
        if module is None:
            return "the encoding" if self._is_encoding else "the network"
        return self._names.layer(module)


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    for value in pytree.tree_leaves(tree):
        if isinstance(value, Tensor):
            yield value


def detached(tree: Any) -> Any:
    """Tensors in it without a graph."""
    return pytree.tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, tree)
