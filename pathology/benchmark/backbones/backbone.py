"""Networks of a study, each beside its twin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bcos_vit.models import TWINS
from bcos_vit.models.registry import nearest
from pathology.benchmark.nearest import hint

Family = Literal["bcos", "conventional"]
Architecture = Literal["cnn", "vit"]

SETTINGS = {
    "epochs": "trainer.max_epochs",
    "lr": "model.lr",
    "warmup_epochs": "model.warmup_epochs",
    "batch": "data.batch_size",
    "augment": "data.augment",
    "balance": "data.balance",
    "init_from": "model.init_from",
}
"""What configs call the settings of training most often told, and the verb's names of them."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network and how it is trained.

    Args:
        name: in the study.
        model: timm's or ours.
        model_args: further arguments of the model.
        family: whether it is a B-cos network.
        architecture: with tokens, or convolutions from end to end.
        pair: shared with its twin.
        training: settings of ``pathology train``: keys of :data:`SETTINGS`, or names of the verb's
            own, as ``model.weight_decay``.
    """

    name: str
    model: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    family: Family = "conventional"
    architecture: Architecture = "cnn"
    pair: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, further: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings of training under the verb's names; its own win over ``further`` ones."""
        merged: dict[str, Any] = {}
        for given in (further or {}, self.training):
            for name, value in given.items():
                merged[_verb_name(name)] = value
        return merged


def _verb_name(name: str) -> str:
    """What ``pathology train`` calls a setting.

    Raises:
        ValueError: neither a short name nor one of a part of the verb's config.
    """
    if name in SETTINGS:
        return SETTINGS[name]
    if name.partition(".")[0] in ("model", "data", "trainer") or name == "patience":
        return name
    meant = hint(name, SETTINGS, f"wanted {', '.join(SETTINGS)}, or model.NAME")
    raise ValueError(f"training has no setting {name!r}; {meant}")


def make_backbones(entries: Sequence[str | Mapping[str, Any]]) -> list[Backbone]:
    """Networks as configs list them; one with ``twin: true`` stands for itself and its twin.

    Args:
        entries: a model's name, or ``model`` and, where wanted, ``name, model_args, training``, the
            last two its own; ``twin`` true for the twin alike, or settings in which the twin
            differs, as ``{training: {lr: 1e-3}}``.

    Raises:
        ValueError: an entry without model or of unknown keys, or two of one name.
        UnknownModelError: a twin is asked for where none is known.
    """
    made: list[Backbone] = []
    for entry in entries:
        given: dict[str, Any] = {"model": entry} if isinstance(entry, str) else dict(entry)
        known = ("model", "name", "model_args", "training", "twin")
        unknown = [key for key in given if key not in known]
        if unknown or "model" not in given:
            wrong = f"no key {unknown[0]!r}" if unknown else "no model"
            raise ValueError(f"backbones: {given} has {wrong}; keys are {', '.join(known)}")
        ours = _backbone(
            given["model"],
            str(given.get("name", given["model"])),
            given.get("model_args") or {},
            given.get("training") or {},
        )
        made.append(ours)
        if given.get("twin"):
            made.append(twin_of(ours, {} if given["twin"] is True else given["twin"]))
    names = [each.name for each in made]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"backbones: two are called {twice!r}; give one of them another name")
    return made


def twin_of(ours: Backbone, differs: Mapping[str, Any] | None = None) -> Backbone:
    """The conventional network of the same depth and width.

    Args:
        ours: a B-cos network.
        differs: ``name``, ``model_args`` and ``training`` of the twin that are not ours.

    Raises:
        UnknownModelError: no twin is known.
        ValueError: another key.
    """
    from bcos_vit.errors import UnknownModelError

    differs = dict(differs or {})
    if ours.model not in TWINS:
        raise UnknownModelError(
            f"{ours.model!r} has no conventional twin{nearest(ours.model, list(TWINS))}"
        )
    if unknown := set(differs) - {"name", "model_args", "training"}:
        raise ValueError(f"twin of {ours.name}: no key {sorted(unknown)[0]!r}")
    model, arguments = TWINS[ours.model]
    return _backbone(
        model,
        str(differs.get("name", ours.name.removeprefix("bcos_"))),
        {**arguments, **ours.model_args, **(differs.get("model_args") or {})},
        {**ours.training, **(differs.get("training") or {})},
        pair=ours.pair,
    )


def _backbone(
    model: str,
    name: str,
    model_args: Mapping[str, Any],
    training: Mapping[str, Any],
    pair: str | None = None,
) -> Backbone:
    made = Backbone(
        name,
        model,
        dict(model_args),
        "bcos" if model.startswith("bcos_") else "conventional",
        "vit" if any(word in model for word in ("vit", "swin", "deit")) else "cnn",
        name.removeprefix("bcos_") if pair is None else pair,
        dict(training),
    )
    made.settings()  # names of settings are checked before anything is trained
    return made
