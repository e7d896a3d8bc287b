"""Classes: which annotations make which class."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pathology.errors import AnnotationError

Origin = Literal["auto", "slide", "bounds"]
Key = str | int  # an annotation's name, or a value of a mask image

REST = "*"
RESERVED = ("ignore", "origin")
HOW = (
    'write it as {"tumour": 2, "normal": 1} for mask images, as {"tumour": ["Tumor", "_0"], ...} '
    'for drawn regions, or with {"include": [...], "exclude": [...]} where areas are cut out'
)


@dataclass(frozen=True, slots=True)
class Class:
    """The annotations of one class.

    Args:
        include: their names, or their values in a mask image.
        exclude: those whose area is cut out again.
    """

    include: tuple[Key, ...]
    exclude: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Classes(Mapping[str, Class]):
    """The classes by name, in order: of two that cover a tile equally the first wins.

    An annotation is named by text, a value of a mask image by a whole number, a colour (in a mask
    image, or of an ImageScope layer) by ``"#rrggbb"``; a mapping may mix them, for cohorts that do.
    Names are compared without regard to case and outer spaces. ``""`` is an annotation without a
    class, ``"*"`` every one that nothing else here mentions.

    Args:
        classes: the classes.
        ignore: annotations that are treated as if they were not there.
        origin: where coordinates of polygons count from: ``"slide"``, the corner of level 0;
            ``"bounds"``, the corner of the scanned part, to which QuPath crops a slide whose file
            names it (MRXS, SCN); ``"auto"``, bounds for GeoJSON and slide for XML.

    Raises:
        ValueError: no classes, one without a name or without annotations, or an annotation that
            belongs to two.
    """

    classes: Mapping[str, Class]
    ignore: tuple[Key, ...] = ()
    origin: Origin = "auto"
    _known: frozenset[Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.classes or "" in self.classes:
            raise ValueError(f"classes must have names, got {list(self.classes)}")
        if self.origin not in get_args(Origin):
            raise ValueError(f"origin must be one of {get_args(Origin)}, got {self.origin!r}")
        owners: dict[Key, str] = {}
        for name, keys in [*((n, c.include) for n, c in self.items()), ("ignore", self.ignore)]:
            if not keys and name in self.classes:
                raise ValueError(f"class {name!r} must include an annotation")
            for key in keys:
                if (owner := owners.setdefault(folded(key), name)) != name:
                    raise ValueError(f"{key!r} must be of one class, got {owner!r} and {name!r}")
        for name, one in self.items():
            for key in one.exclude:
                if owners.get(folded(key)) in (name, "ignore"):
                    raise ValueError(
                        f"{key!r} must not be cut out of {name!r} and ignored or part of it"
                    )
        used = [key for one in self.values() for key in (*one.include, *one.exclude)]
        object.__setattr__(self, "_known", frozenset(map(folded, (*used, *self.ignore))))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From plain values, as in ``regions.json``.

        Raises:
            ValueError: as of the class, and for values of another form.
        """
        classes = {name: _class(name, v) for name, v in values.items() if name not in RESERVED}
        ignore = _keys("ignore", values.get("ignore", []))
        return cls(classes, ignore, values.get("origin", "auto"))

    def mentioned(self, names: Sequence[Key]) -> Key | None:
        """The first of an annotation's names that the mapping knows, :func:`folded`.

        ``"*"`` for one that it does not know but has a ``"*"`` for, else ``None``.
        """
        known = (folded(name) for name in names if folded(name) in self._known)
        return next(known, REST if REST in self._known else None)

    @property
    def has_colours(self) -> bool:
        """Values of masks are given as colours."""
        return any(colour_value(key) is not None for key in self._known)

    def __getitem__(self, name: str) -> Class:
        return self.classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)


def folded(key: Key) -> Key:
    """A name as it is compared: without case and outer spaces."""
    return key.strip().casefold() if isinstance(key, str) else key


def colour_value(key: Key) -> int | None:
    """``0xrrggbb`` of ``"#rrggbb"``, ``None`` of another key."""
    if not isinstance(key, str) or len(key.strip()) != 7 or not key.strip().startswith("#"):
        return None
    try:
        return int(key.strip()[1:], 16)
    except ValueError:
        return None


def read_classes(path: str | Path) -> Classes:
    """The mapping in a ``regions.json``: annotations by class, see :class:`Classes`.

    ::

        {"tumour": {"include": ["Tumor", "_0", "_1"], "exclude": ["_2"]},
         "normal": ["Normal", 1],
         "ignore": ["ROI"]}

    Raises:
        AnnotationError: missing, no JSON, or a mapping that cannot be used.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=_once)
        if not isinstance(values, dict):
            raise ValueError(f"an object is wanted, got {type(values).__name__}")
        return Classes.of(values)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are too
        raise AnnotationError(
            f"{path}: no mapping of regions to classes: {error}; {HOW}"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are told apart, where JSON would let the last one win."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"a name must stand once, got {[name for name, _ in pairs]}")
    return values


def _class(name: str, value: Any) -> Class:
    if isinstance(value, dict):
        if not {"include"} <= set(value) <= {"include", "exclude"}:
            raise ValueError(
                f"class {name!r} must have include and may have exclude, got {[*value]}"
            )
        exclude = _keys(name, value.get("exclude", []))
        return Class(_keys(name, value["include"]), exclude)
    return Class(_keys(name, value))


def _keys(name: str, value: Any) -> tuple[Key, ...]:
    keys = value if isinstance(value, (list, tuple)) else [value]
    for key in keys:
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise ValueError(f"{name!r} must list names or whole numbers, got {key!r}")
    return tuple(keys)
