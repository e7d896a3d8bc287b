"""What the YAML of a study says, taken as what it has to be or refused in a line."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """A key that stands twice is an error, where PyYAML takes the last; and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue  # what is merged in may be overruled
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable) and name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name} stands there twice", key.start_mark
                )
            seen.add(name if isinstance(name, Hashable) else None)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_words(path: Path) -> Mapping[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        ValueError: naming the file: it cannot be read, is no YAML, or holds no mapping.
    """
    try:
        words = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        json.dumps(words, default=str, skipkeys=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(words, dict):
        raise ValueError(f"{path}: holds no study; see configs/benchmark")
    return words


def is_mapping(key: str, value: object) -> Mapping[str, Any]:
    """``value``, which has to be settings."""
    if not isinstance(value, dict):
        raise ValueError(f"{key}: got {value!r}, wanted settings (key: value)")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"{key}: the key {name!r} is no word")
    return value


def mapping(words: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Settings under a key; none where it is not there."""
    value = words.get(key)
    return {} if value is None else is_mapping(key, value)


def listed(words: Mapping[str, Any], key: str) -> Sequence[Any]:
    """A list under a key; empty where it is not there."""
    value = words.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{key}: got {value!r}, wanted a list")
    return value


def count(key: str, value: object, least: int = 0) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}: got {value!r}, wanted a whole number of at least {least}")
    return value


def text(key: str, value: object) -> str:
    """Words or a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{key}: got {value!r}, wanted words")
    return str(value)


def check_name(key: str, name: str) -> None:
    """Names become parts of folders."""
    if not name or not all(letter.isalnum() or letter in "_-.+" for letter in name):
        raise ValueError(f"{key}: {name!r} has letters other than a-z, 0-9, _ - . +; rename it")


def unique(key: str, names: Sequence[str]) -> None:
    """Names of which none stands twice."""
    for name in names:
        check_name(key, name)
        if names.count(name) > 1:
            raise ValueError(f"{key}: {name} stands there twice; name one of them with `as: ...`")
