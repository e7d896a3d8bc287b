"""ASAP's XML, as of CAMELYON16 and 17."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.annotation import Annotations, Drawing
from pathology.annotations.xml import hex_colour, number
from pathology.errors import AnnotationError

AREAS = ("polygon", "rectangle", "spline")
OTHERS = ("dot", "pointset", "measurement", "none")
CURVE_POINTS = 16  # from one knot of a spline to the next


@dataclass
class _Shape:
    kind: str
    group: str
    where: str
    title: str
    colour: str
    points: list[tuple[float, float, float]] = field(default_factory=list)  # order, x, y


class AsapHandler:
    """An annotation goes by its group, and by the groups around that one.

    Polygons, rectangles and splines have areas; dots, point sets and measurements are counted. A
    spline is a closed Catmull-Rom curve through its points.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shapes: list[_Shape] = []
        self._parents: dict[str, str] = {}

    def start(self, tag: str, attributes: Mapping[str, str], line: int) -> None:
        if tag == "Annotation":
            kind = attributes.get("Type", "Polygon").lower()
            name = attributes.get("Name", "")
            where = f"annotation {len(self._shapes)} ({name!r}, line {line})"
            if kind not in AREAS + OTHERS:
                known = ", ".join(AREAS + OTHERS)
                raise AnnotationError(f"{self._path}: {where} is a {kind!r}, known are {known}")
            colour = hex_colour(attributes.get("Color", ""))
            self._shapes.append(_Shape(kind, _group(attributes), where, name, colour))
        elif tag == "Coordinate":
            if not self._shapes:
                raise AnnotationError(f"{self._path}: line {line}: a point of no annotation")
            x, y = (number(self._path, line, attributes, name) for name in "XY")
            points = self._shapes[-1].points
            has_order = "Order" in attributes
            order = number(self._path, line, attributes, "Order") if has_order else len(points)
            points.append((order, x, y))
        elif tag == "Group":
            self._parents[attributes.get("Name", "")] = _group(attributes)

    def end(self, tag: str) -> None:
        """Nothing: a point belongs to the annotation that began last."""

    def finish(self) -> Annotations:
        drawing = Drawing(self._path, "asap")
        for shape in self._shapes:
            if shape.kind in OTHERS:
                drawing.leave_out("points and lines")
                continue
            points = np.array([point[1:] for point in sorted(shape.points, key=lambda p: p[0])])
            if shape.kind == "spline" and len(points) >= 3:
                points = closed_curve(points)
            area, names = drawing.area([[points]], shape.where), self._names(shape.group)
            drawing.add(names, area, shape.where, title=shape.title, colour=shape.colour)
        return drawing.finish()

    def _names(self, group: str) -> list[str]:
        names = [group]
        while (group := self._parents.get(group, "")) and group not in names:
            names.append(group)
        return names


def _group(attributes: Mapping[str, str]) -> str:
    group = attributes.get("PartOfGroup", "")
    return "" if group.lower() == "none" else group


def closed_curve(knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points on the closed, uniform Catmull-Rom curve through ``knots``, ``(n, 2)``."""
    before, after, next_after = (np.roll(knots, -i, axis=0)[:, None] for i in (-1, 1, 2))
    here = knots[:, None]
    t = np.linspace(0, 1, CURVE_POINTS, endpoint=False)[None, :, None]
    curve: NDArray[np.float64] = 0.5 * (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - next_after) * t**2
        + (3 * here - before - 3 * after + next_after) * t**3
    )
    return curve.reshape(-1, 2)
