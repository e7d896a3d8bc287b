"""Creating models by name: a thin face on timm's registry.

B-cos models live in timm's own registry (``bcos_*``), so everything that creates timm models
creates them. A family's file lists its variants as data and registers them here; from those rows
come the data configs, the entry points and the table of conventional twins.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from bcos_vit.errors import BcosError, UnknownModelError, WeightsError
from bcos_vit.models.base import BcosModel
from bcos_vit.models.own_modules import import_own_module
from bcos_vit.models.weights import PUBLISHED, load_published, published

TWINS: dict[str, tuple[str, dict[str, Any]]] = {}
"""The conventional network of the same depth and width as each B-cos model, and its arguments."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a family.

    Args:
        doc: what it is, in a line.
        args: arguments of the family's class that set it apart.
        twin: timm's name of the conventional network of the same depth and width.
        twin_args: what makes the twin a fair opponent.
    """

    doc: str
    args: dict[str, Any] = field(default_factory=dict)
    twin: str = ""
    twin_args: dict[str, Any] = field(default_factory=dict)


def register_variants(
    family: type[BcosModel],
    variants: Mapping[str, Variant],
    *,
    first_conv: str | Mapping[str, str],
    classifier: str,
    features_only: bool = True,
    feature_cfg: Mapping[str, Any] | None = None,
    **config: Any,
) -> None:
    """Register every variant of ``family`` in timm, under the module that ``family`` lives in.

    Args:
        family: the model class.
        variants: by model name.
        first_conv: name of the first layer in the model; by variant where they differ.
        classifier: name of the classifier in the model.
        features_only: whether feature maps can be asked for.
        feature_cfg: how timm takes the model apart for feature maps, where not as usual.
        config: further entries of the data config.
    """
    module: Any = sys.modules[family.__module__]
    configs: dict[str, Any] = {}
    for name in variants:
        first = first_conv if isinstance(first_conv, str) else first_conv[name]
        base = _data_config(first, classifier, **config)
        tagged = {f"{name}.{w.tag}": base | w.data_config() for w in PUBLISHED if w.model == name}
        configs |= tagged or {name: base}
    module.default_cfgs = getattr(module, "default_cfgs", {}) | generate_default_cfgs(configs)
    for name, variant in variants.items():
        if variant.twin:
            TWINS[name] = (variant.twin, variant.twin_args)
        _register(family, name, variant, features_only, feature_cfg or {})


def _register(
    family: type[BcosModel],
    name: str,
    variant: Variant,
    features_only: bool,
    feature_cfg: Mapping[str, Any],
) -> None:
    """Make the entry point that timm calls for one model."""

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if kwargs.get("features_only") and not features_only:
            raise RuntimeError(
                f"features_only is for networks with feature maps; {name} has tokens"
            )
        config, overlay = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")
        cache_dir = kwargs.pop("cache_dir", None)
        # A tag names the network that was published, also where its weights are not asked for.
        tagged = pretrained or isinstance(config, str)
        weights = published(name, config, overlay) if tagged else None

        def build(**arguments: Any) -> BcosModel:
            model = family(**arguments)
            if pretrained and weights is not None:
                load_published(model, weights, cache_dir)
            return model

        arguments = variant.args | (weights.model_args if weights else {}) | kwargs
        # timm's own loading is left out: it neither checks hashes nor knows six channels.
        model: nn.Module = build_model_with_cfg(
            build, name, pretrained=False, feature_cfg=dict(feature_cfg), **arguments
        )
        if isinstance(model, BcosModel):
            model.pretrained_cfg = model.pretrained_cfg | _input_config(model)
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = family.__module__
    entry.__doc__ = variant.doc
    setattr(sys.modules[family.__module__], name, register_model(entry))


def _input_config(model: BcosModel) -> dict[str, Any]:
    """What the data config says of the input, for the channels and encoding that were asked for."""
    config = model.pretrained_cfg
    is_rgb = model.encoding == "rgb"
    return {
        "encoding": model.encoding,
        "input_size": (model.in_chans, *config["input_size"][1:]),
        "mean": tuple(config["mean"][:3]) if is_rgb else (0.0,) * model.in_chans,
        "std": tuple(config["std"][:3]) if is_rgb else (1.0,) * model.in_chans,
    }


def _data_config(first_conv: str, classifier: str, **extra: Any) -> dict[str, Any]:
    """The data config of a B-cos model: six channels in [0, 1], no mean or deviation."""
    return {
        "num_classes": 1000,
        "input_size": (6, 224, 224),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.0,) * 6,
        "std": (1.0,) * 6,
        "first_conv": first_conv,
        "classifier": classifier,
        **extra,
    }


def list_models(pattern: str = "bcos_*") -> list[str]:
    """Names of registered models that match a shell-style pattern; all B-cos models by default."""
    names: list[str] = timm.list_models(pattern)
    return names


def nearest(name: str, known: Sequence[str]) -> str:
    """What an error message adds about names like ``name``; nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """``timm.create_model`` for B-cos and conventional models alike.

    A model of your own is ``package.module:name``: that module, installed or a file where one
    stands, is imported first, and registers the name in timm.

    Raises:
        UnknownModelError: no such model; names the nearest. Or a module that cannot be imported.
        WeightsError: its weights are unknown or cannot be loaded.
        TypeError: a keyword that the model does not take.
    """
    if ":" in name:
        module, _, name = name.rpartition(":")
        _register_models_of(module, name)
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise UnknownModelError(
            f"no model is called {name!r}{nearest(architecture, timm.list_models())}"
        )
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except (RuntimeError, OSError) as error:
        if kwargs.get("pretrained") or "." in name:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise WeightsError(f"weights of {name!r} cannot be had: {reason}") from error
        raise
    return model


def _register_models_of(module: str, name: str) -> None:
    """Import a module of the user's, which registers its models.

    Raises:
        UnknownModelError: it cannot be imported; whatever it raises is said.
    """
    try:
        import_own_module(module)
    except BcosError:
        raise
    # The module's own errors, too: it is the user's.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UnknownModelError(
            f"model {module}:{name}: {type(error).__name__}: {reason}; wanted package.module:name,"
            " of a module that registers the name in timm"
        ) from error


def create_twin(name: str, **kwargs: Any) -> nn.Module:
    """The conventional network of the same depth and width as B-cos model ``name``.

    Raises:
        UnknownModelError: ``name`` has no twin in :data:`TWINS`.
    """
    if name not in TWINS:
        raise UnknownModelError(f"{name!r} has no conventional twin{nearest(name, list(TWINS))}")
    twin, arguments = TWINS[name]
    return create_model(twin, **(arguments | kwargs))
