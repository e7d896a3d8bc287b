"""A study as its YAML says it, checked before anything is computed."""

import difflib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm

from bcos_vit.attribution import make_method
from bcos_vit.errors import BcosError
from pathology.benchmark.backbones import Backbone, make_backbones
from pathology.benchmark.nearest import hint
from pathology.benchmark.slides.study import read_slide_study
from pathology.benchmark.study.measures import GROUPS
from pathology.benchmark.study.roles import check_label
from pathology.benchmark.study.words import (
    check_name,
    count,
    is_mapping,
    listed,
    load_words,
    mapping,
    text,
    unique,
)
from pathology.benchmark.tile_sets import make_maker

KEYS = (
    "name", "title", "data", "backbones", "methods", "metrics", "seeds", "training", "examples",
    "pictures", "batch", "slides",
)  # fmt: skip
ORACLE = "oracle"
LEAST = {"trainer.max_epochs": 1, "model.lr": 0, "model.warmup_epochs": 0, "data.batch_size": 1}
"""Of settings of training, which ``pathology train`` would only refuse once tiles are made."""
DEFAULT_METRICS = ("localisation", "grid", "faithfulness", "ledger", "cost")


@dataclass(frozen=True, slots=True)
class NamedMethod:
    """A method as a study names it.

    Args:
        label: its name in tables; one method may stand there twice with other settings.
        name: in the registry of methods.
        settings: its own.
    """

    label: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared on what.

    Args:
        name: of the study, in every row.
        title: of its page.
        data: by name, what makes a tile set.
        backbones: networks.
        methods: of explanation.
        metrics: groups of metrics with their settings.
        seeds: of training.
        training: settings of ``pathology train`` for all.
        examples: how many tiles of ``test`` and of ``validation`` are explained; 0 is all.
        pictures: how many test tiles the page shows.
        batch: images explained at a time.
        slides: of the part on slides; none where it is empty.
    """

    name: str
    title: str
    data: dict[str, dict[str, Any]]
    backbones: tuple[Backbone, ...]
    methods: tuple[NamedMethod, ...]
    metrics: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    training: dict[str, Any]
    examples: dict[str, int]
    pictures: int
    batch: int
    slides: dict[str, Any]


def load_study(path: Path) -> Study:
    """A study of a YAML file.

    Raises:
        ValueError: naming file and key: an unknown key, model, method, setting or group of metrics
            (with the nearest), a name that stands twice, a number out of range.
    """
    words = load_words(path)
    try:
        return read_study(words, path.stem)
    except (ValueError, TypeError, BcosError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_study(words: Mapping[str, Any], default_name: str = "study") -> Study:
    """A study of what a YAML file says.

    Raises:
        ValueError: as :func:`load_study`, without the file.
    """
    for key in words:
        if key not in KEYS:
            raise ValueError(f"{key}: no such key; {hint(str(key), KEYS)}")
    name = text("name", words.get("name", default_name))
    check_name("name", name)
    slides = _slides(words)
    data = {str(key): dict(is_mapping(f"data.{key}", value))
            for key, value in mapping(words, "data").items()}  # fmt: skip
    backbones = _backbones(listed(words, "backbones"))
    methods = tuple(_method(i, each) for i, each in enumerate(listed(words, "methods")))
    if not slides and not (data and backbones):
        raise ValueError("data and backbones are needed, or slides")
    if bool(data) != bool(backbones):
        raise ValueError("data and backbones go together; one of them is missing")
    for key, value in data.items():
        check_name(f"data.{key}", key)
        try:
            make_maker(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"data.{key}: {error}") from error
    unique("methods", [each.label for each in methods])
    return Study(
        name=name,
        title=text("title", words.get("title", name)),
        data=data,
        backbones=backbones,
        methods=methods,
        metrics=_metrics(words),
        seeds=_seeds(words.get("seeds", [0])),
        training=_training(words, backbones),
        examples=_examples(words),
        pictures=count("pictures", words.get("pictures", 4)),
        batch=count("batch", words.get("batch", 16), least=1),
        slides=slides,
    )


def _slides(words: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the part on slides; its encoder may be a network of the study itself."""
    slides = dict(mapping(words, "slides"))
    if not slides:
        return slides
    encoder = slides.get("encoder")
    if isinstance(encoder, dict):
        if sorted(encoder) != ["backbone", "data"]:
            raise ValueError("slides.encoder: wanted a folder, or data and backbone of the study")
        names = {
            "data": list(mapping(words, "data")),
            "backbone": [each.name for each in _backbones(listed(words, "backbones"))],
        }
        for key, known in names.items():
            if encoder[key] not in known:
                raise ValueError(
                    f"slides.encoder.{key}: the study has no {encoder[key]!r};"
                    f" {hint(str(encoder[key]), known)}"
                )
    read_slide_study(slides | {"encoder": "a run"} if isinstance(encoder, dict) else slides)
    return slides


def _examples(words: Mapping[str, Any]) -> dict[str, int]:
    counts = {"test": 100, "validation": 50}
    for key, value in mapping(words, "examples").items():
        if key not in counts:
            raise ValueError(f"examples.{key}: no such part; {hint(str(key), counts)}")
        counts[key] = count(f"examples.{key}", value)
    return counts


def _seeds(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"seeds: got {value!r}, wanted a list such as [0, 1, 2]")
    seeds = tuple(count("seeds", each) for each in value)
    if max(seeds) >= 2**32:
        raise ValueError(f"seeds: {max(seeds)} is too large, wanted less than 2**32")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: {list(seeds)} has one twice")
    return seeds


def _method(place: int, entry: object) -> NamedMethod:
    settings = {"name": entry} if isinstance(entry, str) else is_mapping("methods", entry)
    settings = dict(settings)
    if "name" not in settings:
        raise ValueError(f"methods[{place}]: has no name")
    name = str(settings.pop("name"))
    label = str(settings.pop("as", name))
    if name == ORACLE and settings:
        raise ValueError(f"methods.{label}: has no settings; its masks are the tile set's")
    try:
        make_method(name, **settings)
        check_label(label, name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"methods.{label}: {error}") from error
    return NamedMethod(label, name, settings)


def _backbones(entries: Sequence[Any]) -> tuple[Backbone, ...]:
    for i, entry in enumerate(entries):
        if not isinstance(entry, str):
            _check_backbone(f"backbones[{i}]", is_mapping(f"backbones[{i}]", entry))
    made = tuple(make_backbones(entries))
    for each in made:
        check_name("backbones", each.name)
        if not timm.is_model(each.model):
            raise ValueError(f"backbones: no model is called {each.model!r}{nearest(each.model)}")
    return made


def _check_backbone(key: str, entry: Mapping[str, Any]) -> None:
    """Kinds of what an entry says, its twin's likewise."""
    for name in ("model", "name"):
        if not isinstance(entry.get(name, ""), str):
            raise ValueError(f"{key}.{name}: got {entry[name]!r}, wanted a name")
    for name in ("model_args", "training"):
        mapping(entry, name)
    twin = entry.get("twin", False)
    if not isinstance(twin, bool):
        _check_backbone(f"{key}.twin", is_mapping(f"{key}.twin", twin))


def _training(words: Mapping[str, Any], backbones: Sequence[Backbone]) -> dict[str, Any]:
    """Settings of training for all, seen beside each network's own."""
    training = dict(mapping(words, "training"))
    for each in backbones:
        for name, value in each.settings(training).items():
            least = LEAST.get(name)
            if least is None:
                continue
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not least <= value < math.inf:
                raise ValueError(
                    f"training of {each.name}: {name} is {value!r}, wanted a number of at least"
                    f" {least:g}"
                )
    return training


def nearest(model: str) -> str:
    """What a message adds about a name like ``model``."""
    near = difflib.get_close_matches(model, timm.list_models(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _metrics(words: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Groups with all their settings, in the order of the registry."""
    asked: dict[str, dict[str, Any]] = {}
    for entry in listed(words, "metrics") if "metrics" in words else DEFAULT_METRICS:
        pairs = {entry: {}} if isinstance(entry, str) else is_mapping("metrics", entry)
        for name, settings in pairs.items():
            if name not in GROUPS:
                raise ValueError(f"metrics: there is no group {name!r}; {hint(str(name), GROUPS)}")
            if name in asked:
                raise ValueError(f"metrics: {name} stands there twice")
            defaults = GROUPS[name].settings
            given = is_mapping(f"metrics.{name}", settings or {})
            for key, value in given.items():
                if key not in defaults:
                    has = hint(str(key), defaults) if defaults else "it has none"
                    raise ValueError(f"metrics.{name}.{key}: no such setting; {has}")
                if not _same_kind(value, defaults[key]):
                    raise ValueError(
                        f"metrics.{name}.{key}: got {value!r}, wanted such as {defaults[key]!r}"
                    )
            asked[name] = {**defaults, **given}
            try:
                GROUPS[name].check(asked[name])
            except ValueError as error:
                raise ValueError(f"metrics.{name}.{error}") from None
    return {name: asked[name] for name in GROUPS if name in asked}


def _same_kind(value: object, default: object) -> bool:
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:
        return False
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, (list, tuple)):
        return isinstance(value, list)
    return type(value) is type(default)


def digest(what: object) -> str:
    """12 hex digits of anything that JSON can hold; the same for the same."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
