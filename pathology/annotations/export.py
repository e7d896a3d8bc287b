"""GeoJSON for QuPath: annotations, and tiles with their values."""

import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.annotation import Annotation
from pathology.outputs import complete_file

TILES = 4096  # values of so many are held at once


def write_geojson(
    path: str | Path, drawn: Iterable[Annotation], origin: tuple[float, float] = (0, 0)
) -> int:
    """Write annotations as QuPath reads them (File, Import objects); ``.gz`` compresses.

    Args:
        path: a ``.geojson`` or ``.geojson.gz``.
        drawn: areas in level-0 pixels; the first of their names becomes the class.
        origin: level-0 location from which the file's coordinates count: the corner of the slide's
            bounds where QuPath crops to them (MRXS, SCN).

    Returns:
        How many were written.

    Raises:
        OutputError: the file cannot be written.
    """
    return write_features(Path(path), (annotation_feature(one, origin=origin) for one in drawn))


def annotation_feature(
    one: Annotation,
    measurements: Mapping[str, float] | None = None,
    metadata: Mapping[str, str] | None = None,
    origin: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    """An annotation as QuPath's GeoJSON has it.

    Args:
        one: the area, in level-0 pixels; the first of its names becomes the class, its colour the
            class's where there is one.
        measurements: numbers by name; those that are not finite are left out.
        metadata: texts by name.
        origin: as in :func:`write_geojson`.
    """
    import shapely

    moved = shapely.transform(one.geometry, lambda points: points - np.array(origin))
    properties: dict[str, Any] = {"objectType": "annotation"}
    if one.title:
        properties["name"] = one.title
    own = list(bytes.fromhex(one.colour.removeprefix("#")))
    if one.names[0]:
        properties |= _classification(one.names[0], own)
    elif own:
        properties["color"] = own
    if measurements is not None:
        properties["measurements"] = {k: v for k, v in measurements.items() if math.isfinite(v)}
    if metadata is not None:
        properties["metadata"] = dict(metadata)
    feature = _feature(shapely.geometry.mapping(moved), properties)
    return {"type": "Feature", "id": one.identity, **feature} if one.identity else feature


def write_tiles(
    path: str | Path,
    boxes: NDArray[np.float64],
    columns: Mapping[str, NDArray[Any]],
    origin: tuple[float, float] = (0, 0),
) -> int:
    """Write tiles as QuPath's tile objects, one at a time, whatever their number.

    Args:
        path: a ``.geojson`` or ``.geojson.gz``.
        boxes: ``(n, 4)`` rows ``x, y, width, height`` in level-0 pixels.
        columns: values of each tile. ``label`` becomes the class, numbers become measurements
            (not the ones that are not finite), text becomes metadata.
        origin: as in :func:`write_geojson`.

    Returns:
        How many were written.

    Raises:
        OutputError: the file cannot be written.
    """

    def features() -> Iterator[dict[str, Any]]:
        for start in range(0, len(boxes), TILES):
            part = slice(start, start + TILES)
            rows = {name: np.asarray(column[part]).tolist() for name, column in columns.items()}
            for i, box in enumerate((boxes[part] - [*origin, 0, 0]).tolist()):
                yield _tile(box, {name: column[i] for name, column in rows.items()})

    return write_features(Path(path), features())


def _tile(box: Sequence[float], values: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = box
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    properties = {"objectType": "tile"} | _classification(str(values.pop("label", "")))
    # Truth values are numbers, too: QuPath's measurements are nothing else.
    numbers = {
        name: int(v) if isinstance(v, bool) else v
        for name, v in values.items()
        if isinstance(v, (int, float))
    }
    texts = {name: str(v) for name, v in values.items() if name not in numbers}
    properties["measurements"] = {name: v for name, v in numbers.items() if math.isfinite(v)}
    if texts:
        properties["metadata"] = texts
    return _feature({"type": "Polygon", "coordinates": [corners]}, properties)


def _feature(geometry: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _classification(name: str, own: list[int] | None = None) -> dict[str, Any]:
    if not name:
        return {}
    return {"classification": {"name": name, "color": own or colour(name)}}


def colour(name: str) -> list[int]:
    """A class's colour, always the same, neither too dark nor too pale to see on a slide."""
    import colorsys

    hue = hashlib.sha256(name.encode()).digest()[0] / 256
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 0.85)]


def write_features(
    path: Path, features: Iterable[Mapping[str, Any]], members: Mapping[str, Any] | None = None
) -> int:
    """Write a FeatureCollection, one feature at a time.

    Args:
        path: a ``.geojson`` or ``.geojson.gz``.
        features: GeoJSON features.
        members: further members of the collection, which readers that do not know them pass over
            (RFC 7946, section 6.1); they come first in the file.

    Returns:
        How many were written.

    Raises:
        OutputError: the file cannot be written.
        ValueError: something that JSON does not hold, such as NaN.
    """
    texts = 0
    with complete_file(path) as draft, _opened(draft, path.suffix.lower() == ".gz") as out:
        for text in collection_text(features, members):
            out.write(text)
            texts += 1
    return texts - 2  # head and end


def collection_text(
    features: Iterable[Mapping[str, Any]], members: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """The text of a FeatureCollection: its head, one text per feature, and its end.

    Args:
        features: see :func:`write_features`.
        members: likewise.

    Raises:
        ValueError: something that JSON does not hold, such as NaN.
    """
    head = "".join(
        f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)},\n"
        for name, value in (members or {}).items()
    )
    yield f'{{"type": "FeatureCollection", {head}"features": ['
    before = "\n"
    for feature in features:
        yield before + json.dumps(feature, allow_nan=False)
        before = ",\n"
    yield "\n]}\n"


@contextmanager
def _opened(path: Path, is_compressed: bool) -> Iterator[IO[str]]:
    """Text into a file; compressed without name and time, so that equal content is equal bytes."""
    with path.open("wb") as raw:
        if not is_compressed:
            with TextIOWrapper(raw, "utf-8") as text:
                yield text
            return
        with (
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            TextIOWrapper(packed, "utf-8") as text,
        ):
            yield text
