"""GeoJSON as QuPath writes it."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pathology.annotations.annotation import Annotations, Drawing
from pathology.errors import AnnotationError

GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString",
              "MultiLineString")  # fmt: skip


def read_geojson(path: Path) -> Annotations:
    """The polygons of a file, also one compressed by gzip; see :func:`parse_geojson`.

    Raises:
        AnnotationError: it is missing, or as :func:`parse_geojson` says.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise AnnotationError(f"{path}: cannot be read: {reason}") from error
    return parse_geojson(path, data)


def parse_geojson(path: Path, data: bytes) -> Annotations:
    """The polygons of a FeatureCollection, a list of features, one feature, or a bare geometry.

    Coordinates stay as in the file. A class is QuPath's ``classification``; of ``Tumor: Positive``
    the second name is ``Tumor``. What is not classified goes by its own name. Points and lines have
    no area; they are counted. Third coordinates are dropped.

    Args:
        path: what messages call the file.
        data: its content, not compressed.

    Raises:
        AnnotationError: no GeoJSON, one that is not as QuPath writes it, or a coordinate that is no
            finite number.
    """
    drawing = Drawing(path, "geojson")
    for i, feature in enumerate(_features(path, _load(path, data))):
        where = f"feature {i}"
        if not isinstance(feature, Mapping):
            raise AnnotationError(f"{path}: {where} is no object")
        is_feature = feature.get("type") == "Feature"
        geometry = feature.get("geometry") if is_feature else feature
        properties = (feature.get("properties") or {}) if is_feature else {}
        if not isinstance(properties, Mapping):
            raise AnnotationError(f"{path}: {where}: properties must be an object")
        polygons = list(_polygons(path, geometry, where, drawing))
        if polygons:
            names = _names(path, properties, where)
            told = _told(properties) | {"identity": _text(feature.get("id"))}
            drawing.add(names, drawing.area(polygons, where), where, **told)
    return drawing.finish()


def _load(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: no JSON: {error}") from error


def _features(path: Path, content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    kind = content.get("type") if isinstance(content, Mapping) else None
    if kind == "FeatureCollection" and isinstance(content.get("features"), list):
        return list(content["features"])
    if kind == "Feature" or kind in GEOMETRIES:
        return [content]
    got = f"an object with {', '.join(list(content)[:5])}" if isinstance(content, Mapping) else kind
    raise AnnotationError(
        f"{path}: no GeoJSON: a FeatureCollection, features or a geometry is wanted, got {got};"
        " export from QuPath as GeoJSON"
    )


def _polygons(path: Path, geometry: Any, where: str, drawing: Drawing) -> Iterator[Any]:
    """Every polygon of a geometry as a list of rings."""
    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    inside = None
    if kind == "GeometryCollection":
        inside = geometry.get("geometries")
    elif kind in ("Polygon", "MultiPolygon"):
        inside = geometry.get("coordinates")
    elif kind in GEOMETRIES:
        drawing.leave_out("points and lines")
        return
    if not isinstance(inside, list):
        raise AnnotationError(f"{path}: {where} has no geometry, got type {kind!r}")
    if kind == "Polygon":
        yield inside
    elif kind == "MultiPolygon":
        yield from inside
    else:
        for part in inside:
            yield from _polygons(path, part, where, drawing)


def _names(path: Path, properties: Mapping[str, Any], where: str) -> list[str]:
    classification = properties.get("classification")
    if isinstance(classification, Mapping):
        parts = classification.get("names") or classification.get("name") or ""
    else:
        parts = classification or ""
    if not parts:
        return [str(properties.get("name") or "")]
    if isinstance(parts, str):
        parts = parts.split(":")
    if not isinstance(parts, list):
        raise AnnotationError(f"{path}: {where}: classification must have a name, got {parts!r}")
    words = [str(part).strip() for part in parts]
    return [": ".join(words[: i + 1]) for i in reversed(range(len(words)))]


def _told(properties: Mapping[str, Any]) -> dict[str, str]:
    """The feature's own name, and its colour or its class's."""
    classification = properties.get("classification")
    colours = [properties.get("color")]
    if isinstance(classification, Mapping):
        colours.append(classification.get("color"))
    found = next(filter(None, map(_hex, colours)), "")
    return {"title": _text(properties.get("name")), "colour": found}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _hex(colour: Any) -> str:
    """``"#rrggbb"`` of red, green and blue (and alpha), ``""`` of anything else."""
    if not isinstance(colour, list) or len(colour) not in (3, 4):
        return ""
    if not all(isinstance(part, int) and 0 <= part <= 255 for part in colour[:3]):
        return ""
    return "#" + bytes(colour[:3]).hex()
