"""The switch that holds dynamic scales constant while a network is being explained.

A B-cos network computes ``W(x) x``. Its gradient with respect to ``x`` equals ``W(x)`` only when
every factor that depends on ``x`` (cosines, norm statistics, attention weights) is held constant.
Layers mark those factors with :func:`held`; :func:`explanation_mode` turns the marks on.

The switch is a ``contextvars.ContextVar``: each thread has its own, nesting restores what was
found, exceptions too, and ``torch.compile`` guards on it (a ``threading.local`` it would bake in
unseen).
No state lives on modules, so a head swapped in later obeys like any other layer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from bcos_vit.errors import NotExplainableError

# The gates of this thread's explanation; None outside of it.
_gates: ContextVar[Mapping[str, Tensor] | None] = ContextVar("bcos_vit_gates", default=None)


@contextmanager
def explanation_mode(gates: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Hold every dynamic scale constant for the forward passes of this thread made inside.

    Args:
        gates: a ``(batch,)`` tensor of ones per constant term, by name; each term is multiplied by
            its gate, so that the gradient with respect to the gate is what the term carries. Terms
            are left as they are when omitted.
    """
    token = _gates.set(gates or {})
    try:
        yield
    finally:
        _gates.reset(token)


@contextmanager
def outside_explanations() -> Iterator[None]:
    """Hold nothing constant inside, whatever this thread explains around it."""
    token = _gates.set(None)
    try:
        yield
    finally:
        _gates.reset(token)


def is_explaining() -> bool:
    """Whether this thread is inside :func:`explanation_mode`."""
    return _gates.get() is not None


def held(x: Tensor) -> Tensor:
    """``x``, as a constant while explaining; unchanged otherwise."""
    return x.detach() if is_explaining() else x


def constant(name: str, value: Tensor) -> Tensor:
    """A term that the network adds by itself, told apart by name while explaining.

    A module that calls this lists the name in its class attribute ``constant_terms``.

    Args:
        name: what it is called in an explanation's ``constants``.
        value: ``(1, ...)``, to be added to something with a batch in front.

    Returns:
        ``value``, or ``(batch, ...)`` copies of it behind their gates.

    Raises:
        NotExplainableError: other terms are gated but this one was not declared.
    """
    gates = _gates.get()
    if not gates:
        return value
    if name not in gates:
        raise NotExplainableError(
            f"the model adds a constant {name!r} that no module lists in constant_terms"
        )
    return held(value) * gates[name].reshape(-1, *[1] * (value.ndim - 1))
