"""XML of annotation tools: which of them wrote a file, and safe parsing."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from xml.parsers import expat

from pathology.annotations.annotation import FARTHEST, Annotations
from pathology.errors import AnnotationError


class Handler(Protocol):
    """Takes the elements of a file as they come; all that is wanted stands in attributes."""

    def start(self, tag: str, attributes: Mapping[str, str], line: int) -> None: ...

    def end(self, tag: str) -> None: ...

    def finish(self) -> Annotations: ...


def read_xml(path: Path) -> Annotations:
    """The areas in a file of ASAP (CAMELYON) or of Aperio ImageScope, in level-0 pixels.

    Raises:
        AnnotationError: missing, no XML, of neither tool, with entities of its own (which can grow
            to any size), or with a coordinate that is no finite number.
    """
    try:
        with path.open("rb") as file:
            return parse_xml(path, file)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_xml(path: Path, file: BinaryIO) -> Annotations:
    """The same of an open file; ``path`` is what messages call it."""
    from pathology.annotations.aperio import AperioHandler
    from pathology.annotations.asap import AsapHandler

    tools: dict[str, Callable[[Path], Handler]] = {
        "ASAP_Annotations": AsapHandler,
        "Annotations": AperioHandler,
    }
    handler: Handler | None = None
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal handler
        if handler is None:
            if tag not in tools:
                raise AnnotationError(
                    f"{path}: neither of ASAP nor of ImageScope, its root is <{tag}>; wanted"
                    " <ASAP_Annotations> or <Annotations>"
                )
            handler = tools[tag](path)
        handler.start(tag, attributes, parser.CurrentLineNumber)

    def end(tag: str) -> None:
        if handler is not None:
            handler.end(tag)

    def refuse(name: str, *_: Any) -> None:
        raise AnnotationError(
            f"{path}: defines an entity {name!r}, which no annotation tool does; not read"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = refuse
    try:
        parser.ParseFile(file)
    except (expat.ExpatError, LookupError) as error:  # the latter of unknown encodings
        raise AnnotationError(f"{path}: no XML, or damaged: {error}") from error
    assert handler is not None  # expat refuses a file without a root
    return handler.finish()


def hex_colour(text: str) -> str:
    """``text`` where it is a colour ``#rrggbb``, else nothing."""
    return text.lower() if re.fullmatch("#[0-9a-fA-F]{6}", text) else ""


def number(path: Path, line: int, attributes: Mapping[str, str], name: str) -> float:
    """A coordinate; some locales write ``71924,5``.

    Raises:
        AnnotationError: missing, no number, or beyond any slide; ``71,924`` may be either of two.
    """
    text = attributes.get(name, "")
    if re.fullmatch(r"\s*-?\d+,\d+\s*", text) and not re.fullmatch(r"\s*-?\d{1,3},\d{3}\s*", text):
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= FARTHEST:
        raise AnnotationError(f"{path}: line {line}: {name} must be a number, got {text!r}")
    return value
