"""A study as its YAML says it, checked before anything is computed."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import yaml

from bcos_vit.attribution import make_method
from bcos_vit.errors import BcosError
from pathology.benchmark.backbones import Backbone, make_backbones
from pathology.benchmark.slides.study import read_slide_study
from pathology.benchmark.study.measures import GROUPS
from pathology.benchmark.study.nearest import hint
from pathology.benchmark.study.roles import check_label
from pathology.benchmark.tile_sets import make_maker

KEYS = (
    "name", "title", "data", "backbones", "methods", "metrics", "seeds", "training", "examples",
    "pictures", "batch", "slides",
)  # fmt: skip
ORACLE = "oracle"
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
    try:
        words = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(words, dict):
        raise ValueError(f"{path}: holds no study; see configs/benchmark")
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
    name = str(words.get("name", default_name))
    slides = _slides(words)
    data = {str(key): dict(_is_mapping(f"data.{key}", value))
            for key, value in _mapping(words, "data").items()}  # fmt: skip
    backbones = _backbones(_list(words, "backbones"))
    methods = tuple(_method(i, each) for i, each in enumerate(_list(words, "methods")))
    if not slides and not (data and backbones):
        raise ValueError("data and backbones are needed, or slides")
    if bool(data) != bool(backbones):
        raise ValueError("data and backbones go together; one of them is missing")
    for key, value in data.items():
        _check_name(f"data.{key}", key)
        try:
            make_maker(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"data.{key}: {error}") from error
    _unique("methods", [each.label for each in methods])
    return Study(
        name=name,
        title=str(words.get("title", name)),
        data=data,
        backbones=backbones,
        methods=methods,
        metrics=_metrics(words),
        seeds=_seeds(words.get("seeds", [0])),
        training=dict(_mapping(words, "training")),
        examples=_examples(words),
        pictures=_count("pictures", words.get("pictures", 4)),
        batch=_count("batch", words.get("batch", 16), least=1),
        slides=slides,
    )


def _slides(words: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the part on slides; its encoder may be a network of the study itself."""
    slides = dict(_mapping(words, "slides"))
    if not slides:
        return slides
    encoder = slides.get("encoder")
    if isinstance(encoder, dict):
        if sorted(encoder) != ["backbone", "data"]:
            raise ValueError("slides.encoder: wanted a folder, or data and backbone of the study")
        names = {
            "data": list(_mapping(words, "data")),
            "backbone": [each.name for each in _backbones(_list(words, "backbones"))],
        }
        for key, known in names.items():
            if encoder[key] not in known:
                raise ValueError(
                    f"slides.encoder.{key}: the study has no {encoder[key]!r};"
                    f" {hint(str(encoder[key]), known)}"
                )
    read_slide_study(slides | {"encoder": "a run"} if isinstance(encoder, dict) else slides)
    return slides


def _is_mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: got {value!r}, wanted settings (key: value)")
    return value


def _mapping(words: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = words.get(key)
    return {} if value is None else _is_mapping(key, value)


def _list(words: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = words.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{key}: got {value!r}, wanted a list")
    return value


def _count(key: str, value: object, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}: got {value!r}, wanted a whole number of at least {least}")
    return value


def _check_name(key: str, name: str) -> None:
    """Names become parts of folders."""
    if not name or not all(letter.isalnum() or letter in "_-.+" for letter in name):
        raise ValueError(f"{key}: {name!r} has letters other than a-z, 0-9, _ - . +; rename it")


def _unique(key: str, names: Sequence[str]) -> None:
    for name in names:
        _check_name(key, name)
        if names.count(name) > 1:
            raise ValueError(f"{key}: {name} stands there twice; name one of them with `as: ...`")


def _examples(words: Mapping[str, Any]) -> dict[str, int]:
    counts = {"test": 100, "validation": 50}
    for key, value in _mapping(words, "examples").items():
        if key not in counts:
            raise ValueError(f"examples.{key}: no such part; {hint(str(key), counts)}")
        counts[key] = _count(f"examples.{key}", value)
    return counts


def _seeds(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"seeds: got {value!r}, wanted a list such as [0, 1, 2]")
    seeds = tuple(_count("seeds", each) for each in value)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: {list(seeds)} has one twice")
    return seeds


def _method(place: int, entry: object) -> NamedMethod:
    settings = {"name": entry} if isinstance(entry, str) else _is_mapping("methods", entry)
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
    made = tuple(make_backbones(entries))
    for each in made:
        _check_name("backbones", each.name)
        if not timm.is_model(each.model):
            raise ValueError(f"backbones: no model is called {each.model!r}{nearest(each.model)}")
    return made


def nearest(model: str) -> str:
    """What a message adds about a name like ``model``."""
    near = difflib.get_close_matches(model, timm.list_models(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _metrics(words: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Groups with all their settings, in the order of the registry."""
    asked: dict[str, dict[str, Any]] = {}
    for entry in _list(words, "metrics") if "metrics" in words else DEFAULT_METRICS:
        pairs = {entry: {}} if isinstance(entry, str) else _is_mapping("metrics", entry)
        for name, settings in pairs.items():
            if name not in GROUPS:
                raise ValueError(f"metrics: there is no group {name!r}; {hint(name, GROUPS)}")
            if name in asked:
                raise ValueError(f"metrics: {name} stands there twice")
            defaults = GROUPS[name].settings
            given = _is_mapping(f"metrics.{name}", settings or {})
            for key, value in given.items():
                if key not in defaults:
                    has = hint(str(key), defaults) if defaults else "it has none"
                    raise ValueError(f"metrics.{name}.{key}: no such setting; {has}")
                if not _same_kind(value, defaults[key]):
                    raise ValueError(
                        f"metrics.{name}.{key}: got {value!r}, wanted such as {defaults[key]!r}"
                    )
            asked[name] = {**defaults, **given}
    return {name: asked[name] for name in GROUPS if name in asked}


def _same_kind(value: object, default: object) -> bool:
    if isinstance(value, (int, float)) and value < 0:
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
