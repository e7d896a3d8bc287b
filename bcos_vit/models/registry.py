"""Creating models by name: a thin face on timm's registry.

B-cos models live in timm's own registry (``bcos_*``), so everything that creates timm models
creates
them. Here are their shared defaults, the table of conventional twins, and an error that suggests.
"""

import difflib
from typing import Any

import timm
from torch import nn

from bcos_vit.errors import UnknownModelError, WeightsError

# The conventional network of the same depth and width, and what makes it a fair opponent.
TWINS: dict[str, tuple[str, dict[str, Any]]] = {
    "bcos_vit_tiny_patch16_224": (
        "vit_tiny_patch16_224",
        {"global_pool": "avg", "class_token": False},
    ),
    "bcos_vitc_tiny_patch16_224": (
        "vit_tiny_patch16_224",
        {"global_pool": "avg", "class_token": False},
    ),
    "bcos_resnet18": ("resnet18", {}),
}


def default_cfg(first_conv: str, classifier: str, **extra: Any) -> dict[str, Any]:
    """The data config of a B-cos model: six channels in [0, 1], no mean or deviation."""
    return {
        "num_classes": 1000,
        "input_size": (6, 224, 224),
        "pool_size": extra.pop("pool", None),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.0,) * 6,
        "std": (1.0,) * 6,
        "first_conv": first_conv,
        "classifier": classifier,
        "license": "apache-2.0",
        **extra,
    }


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """``timm.create_model`` for B-cos and conventional models alike.

    Raises:
        UnknownModelError: no such model; names the nearest.
        WeightsError: its weights are unknown or cannot be loaded.
        TypeError: a keyword that the model does not take.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UnknownModelError(f"no model is called {name!r}{hint}")
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except RuntimeError as error:
        if kwargs.get("pretrained") or "." in name:
            raise WeightsError(f"weights of {name!r} cannot be had: {error}") from error
        raise
    return model


def create_twin(name: str, **kwargs: Any) -> nn.Module:
    """The conventional network of the same depth and width as B-cos model ``name``.

    Raises:
        UnknownModelError: ``name`` has no twin in :data:`TWINS`.
    """
    if name not in TWINS:
        raise UnknownModelError(f"{name!r} has no conventional twin; those with one: {list(TWINS)}")
    twin, arguments = TWINS[name]
    return create_model(twin, **(arguments | kwargs))
