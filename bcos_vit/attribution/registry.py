"""Methods by name."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from bcos_vit.attribution.method import Method
from bcos_vit.models.registry import nearest

METHODS: dict[str, Callable[..., Method]] = {}
"""Classes by name; filled by :func:`register`, which each module of methods calls."""

_Class = TypeVar("_Class", bound=type)


def register(method: _Class) -> _Class:
    """Class decorator: makes a method known by its ``name``.

    Args:
        method: a frozen dataclass; its fields are the method's settings. Whoever changes its
            numbers raises its ``version`` (1 when it has none), which results are kept by.

    Raises:
        ValueError: another class has that name.
    """
    name: str = method.name  # type: ignore[attr-defined]
    if METHODS.get(name, method) is not method:
        raise ValueError(f"two methods are called {name!r}")
    METHODS[name] = method
    return method


def make_method(name: str, /, **settings: Any) -> Method:
    """A method by name.

    Args:
        name: a key of :data:`METHODS`.
        **settings: the method's own.

    Raises:
        ValueError: no such method, with the nearest; a setting that it does not have, or a value
            that the setting cannot have.
        TypeError: a value of the wrong type.
    """
    if name not in METHODS:
        raise ValueError(f"no attribution method is called {name!r}{nearest(name, list(METHODS))}")
    known = settings_of(name)
    for setting in settings:
        if setting not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(
                f"method {name!r} has no setting {setting!r}; {has}{nearest(setting, known)}"
            )
    return METHODS[name](**settings)


def settings_of(name: str) -> list[str]:
    """Names of a registered method's settings."""
    # What has a place in __init__: the rest of the fields are fixed by the class.
    return [each.name for each in fields(METHODS[name]) if each.init]  # type: ignore[arg-type]
