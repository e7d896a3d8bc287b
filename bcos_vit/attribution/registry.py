"""Methods by name."""

from collections.abc import Callable
from typing import Any

from bcos_vit.attribution.method import Method

METHODS: dict[str, Callable[..., Method]] = {}
"""Classes by name; filled by :func:`register`, which each module of methods calls."""


def register(method: type) -> type:
    """Class decorator: makes a method known by its ``name``."""
    METHODS[method.name] = method  # type: ignore[attr-defined]
    return method


def make_method(name: str, **settings: Any) -> Method:
    """A method by name.

    Args:
        name: a key of :data:`METHODS`.
        **settings: the method's own.

    Raises:
        ValueError: no such method, with the nearest; or a setting that it does not have.
    """
    raise NotImplementedError
