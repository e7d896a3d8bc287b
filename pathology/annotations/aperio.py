"""Aperio ImageScope's XML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.annotation import Annotations, Drawing
from pathology.annotations.xml import number
from pathology.errors import AnnotationError

FREEHAND, RECTANGLE, ELLIPSE = "0", "1", "2"
AREAS = (FREEHAND, RECTANGLE, ELLIPSE)  # 3 is an arrow, 4 a ruler, 5 a pen's line
CORNERS = 4  # a rectangle or ellipse of so few points is given by corners, else by its outline
ELLIPSE_POINTS = 256  # an area right to 0.01 %


@dataclass
class _Region:
    kind: str
    text: str
    where: str
    negative: bool
    points: list[tuple[float, float]] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)


@dataclass
class _Layer:
    name: str
    colour: str
    attributes: list[str] = field(default_factory=list)
    regions: list[_Region] = field(default_factory=list)


class AperioHandler:
    """A region goes by its text or attributes, its layer's name or attributes, or its colour.

    Which of these holds the class differs from lab to lab, so a mapping may use any. The colour is
    the layer's, ``"#rrggbb"``. Regions marked negative are cut out of all others of their layer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._layers: list[_Layer] = []
        self._region: _Region | None = None

    def start(self, tag: str, attributes: Mapping[str, str], line: int) -> None:
        if tag == "Annotation":
            colour = _colour(attributes.get("LineColor", ""))
            self._layers.append(_Layer(attributes.get("Name", ""), colour))
        elif tag == "Region":
            layer = self._layer(line)
            where = f"region {attributes.get('Id', len(layer.regions))} of layer"
            where += f" {len(self._layers)} (line {line})"
            kind = attributes.get("Type", FREEHAND)
            negative = attributes.get("NegativeROA", "0") == "1"
            self._region = _Region(kind, attributes.get("Text", ""), where, negative)
            layer.regions.append(self._region)
        elif tag == "Vertex":
            if self._region is None:
                raise AnnotationError(f"{self._path}: line {line}: a point of no region")
            x, y = (number(self._path, line, attributes, name) for name in "XY")
            self._region.points.append((x, y))
        elif tag == "Attribute":
            # "Description" is what ImageScope writes when nobody defined an attribute.
            name = attributes.get("Name", "")
            names = [attributes.get("Value", ""), "" if name == "Description" else name]
            (self._region or self._layer(line)).attributes += [name for name in names if name]

    def end(self, tag: str) -> None:
        if tag == "Region":
            self._region = None

    def finish(self) -> Annotations:
        import shapely

        drawing = Drawing(self._path, "aperio")
        for layer in self._layers:
            areas: dict[bool, list[tuple[_Region, Any]]] = {False: [], True: []}
            for region in layer.regions:
                if region.kind not in AREAS:
                    drawing.leave_out("points and lines")
                    continue
                area = drawing.area([[_outline(region)]], region.where)
                areas[region.negative].append((region, area))
            cut = shapely.union_all([area for _, area in areas[True]])
            for region, area in areas[False]:
                names = [region.text, *region.attributes, layer.name, *layer.attributes]
                names = [name for name in (*names, layer.colour) if name]
                rest = shapely.difference(area, cut) if areas[True] else area
                drawing.add(names, rest, region.where, title=region.text, colour=layer.colour)
        return drawing.finish()

    def _layer(self, line: int) -> _Layer:
        if not self._layers:
            raise AnnotationError(f"{self._path}: line {line}: a region of no layer")
        return self._layers[-1]


def _colour(text: str) -> str:
    """``#rrggbb`` of a whole number ``0xbbggrr``; ``""`` where there is none."""
    if not text.strip().isdecimal() or int(text) >= 2**32:
        return ""
    blue, green, red = int(text).to_bytes(4, "big")[1:]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _outline(region: _Region) -> NDArray[np.float64]:
    points = np.array(region.points, np.float64).reshape(-1, 2)
    if region.kind == FREEHAND or not 2 <= len(points) <= CORNERS:
        return points
    if region.kind == RECTANGLE and len(points) == CORNERS:
        return points  # may be turned
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if region.kind == RECTANGLE:
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)
    centre = np.array([left + right, top + bottom]) / 2
    radii = np.array([right - left, bottom - top]) / 2
    return centre + radii * np.stack([np.cos(angle), np.sin(angle)], axis=1)
