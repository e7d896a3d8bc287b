"""The switch that holds dynamic scales constant while a network is being explained.

A B-cos network computes ``W(x) x``. Its gradient with respect to ``x`` equals ``W(x)`` only when
every factor that depends on ``x`` (cosines, norm statistics, attention weights) is held constant.
Layers mark those factors with :func:`held`; :func:`explanation_mode` turns the marks on.

The switch is a ``contextvars.ContextVar``: each thread has its own, nesting restores what was
found,
exceptions too, and ``torch.compile`` guards on it (a ``threading.local`` it would bake in unseen).
No state lives on modules, so a head swapped in later obeys like any other layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Constants:
    """Terms of a logit that do not come from the input, gathered during one explained forward pass.

    Each entry is a leaf tensor with its own row per image, so that one backward pass tells how much
    of each image's logit it carries.
    """

    def __init__(self) -> None:
        self.leaves: list[tuple[str, Tensor]] = []

    def record(self, name: str, value: Tensor, batch: int) -> Tensor:
        leaf = value.detach().expand(batch, *value.shape[1:]).clone().requires_grad_()
        self.leaves.append((name, leaf))
        return leaf


_constants: ContextVar[Constants | None] = ContextVar("bcos_vit_explaining", default=None)


@contextmanager
def explanation_mode() -> Iterator[Constants]:
    """Hold every dynamic scale constant for the forward passes of this thread made inside.

    Yields:
        The constant terms (logit bias, additive position code) met by the forward pass.
    """
    constants = Constants()
    token = _constants.set(constants)
    try:
        yield constants
    finally:
        _constants.reset(token)


def is_explaining() -> bool:
    """Whether this thread is inside :func:`explanation_mode`."""
    return _constants.get() is not None


def held(x: Tensor) -> Tensor:
    """``x``, as a constant while explaining; unchanged otherwise."""
    return x.detach() if is_explaining() else x


def constant(name: str, value: Tensor, batch: int) -> Tensor:
    """A term added by the network itself, told apart by name while explaining.

    Args:
        name: what it is called in an explanation's ``constants``.
        value: ``(1, ...)`` or ``(batch, ...)`` tensor, to be added to something of that shape.
        batch: number of images in this forward pass.
    """
    constants = _constants.get()
    return value if constants is None else constants.record(name, value, batch)
