"""Annotations: the areas drawn in one file, as valid polygons."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.regions import Source
from pathology.errors import AnnotationError

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

Format = Literal["geojson", "asap", "aperio"]

# By how much two readings of a self-crossing outline may differ, as a fraction of its area: little
# loops where a hand-drawn line closes, not a second winding around half of a region.
CLEAR = 0.01

FARTHEST = 1e9
"""Coordinates beyond it are refused: no slide is so large, and areas would overflow."""

# How much of a file's area must lie on the slide: people draw over its edge, not beside it.
MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Annotation:
    """One drawn area.

    Args:
        names: what it may be called, most specific first: a group and the group around it.
        geometry: valid, with an area, in level-0 pixels.
        where: its place in the file, for messages.
        title: what it alone is called; empty where the file does not say.
        colour: to draw it in, ``"#rrggbb"``; likewise.
        identity: under which QuPath knows it; likewise.
    """

    names: tuple[str, ...]
    geometry: "Polygon | MultiPolygon"
    where: str
    title: str = ""
    colour: str = ""
    identity: str = ""


@dataclass(frozen=True)
class Annotations:
    """What one file holds.

    Args:
        path: the file.
        format: how it is written.
        drawn: the areas.
        notes: what was repaired, clipped or left out, and how often.
    """

    path: Path
    format: Format
    drawn: tuple[Annotation, ...]
    notes: Mapping[str, int] = field(default_factory=dict)

    def placed(self, source: Source, offset: tuple[float, float] = (0, 0)) -> Self:
        """The annotations on a slide: moved by ``offset``, and cut at the slide's edges.

        Args:
            source: the slide.
            offset: level-0 location of the file's origin.

        Raises:
            AnnotationError: one lies wholly outside of the slide, or more than half of their area.
        """
        import shapely

        if not self.drawn:
            return self
        geometries = np.array([one.geometry for one in self.drawn])
        if any(offset):
            geometries = shapely.transform(geometries, lambda points: points + np.array(offset))
        width, height = source.size
        left, top, right, bottom = shapely.bounds(geometries).T
        beyond = np.max([-left, -top, right - width, bottom - height], axis=0)
        apart = np.max([-right, -bottom, left - width, top - height], axis=0)
        slide = shapely.box(0, 0, width, height)
        geometries[beyond > 0] = [
            only_polygons(part) for part in shapely.intersection(geometries[beyond > 0], slide)
        ]
        outside = np.flatnonzero(shapely.is_empty(geometries))
        if len(outside):
            first = outside[0]
            size = f"{width:g} x {height:g}"
            raise AnnotationError(
                f"{self.path}: {self.drawn[first].where} lies outside of slide {source.slide_id},"
                f" {size} px, by {max(apart[first], 0):.0f} px ({len(outside)} of"
                f" {len(self.drawn)} do); check the slide, its level, and the origin"
            )
        kept = shapely.area(geometries).sum() / sum(one.geometry.area for one in self.drawn)
        if kept < MOSTLY:
            raise AnnotationError(
                f"{self.path}: only {kept:.0%} of what was drawn lies on slide {source.slide_id},"
                f" {width:g} x {height:g} px; check the slide, its level, and the origin"
            )
        drawn = tuple(
            replace(one, geometry=geometry)
            for one, geometry in zip(self.drawn, geometries, strict=True)
        )
        clipped = {"cut at the slide's edge": int((beyond > 0).sum())}
        return replace(self, drawn=drawn, notes=_positive({**self.notes, **clipped}))


class Drawing:
    """Collects the areas of a file while it is read.

    Args:
        path: the file.
        kind: how it is written.
    """

    def __init__(self, path: Path, kind: Format) -> None:
        self.path = path
        self.kind = kind
        self.drawn: list[Annotation] = []
        self.notes: Counter[str] = Counter()

    def area(self, polygons: Iterable[Sequence[Any]], where: str) -> Any:
        """A valid geometry of polygons, each an outline and its holes of ``(n, 2)`` points.

        Raises:
            AnnotationError: a coordinate that is no finite number, or an outline that crosses
                itself so that its inside is not clear.
        """
        import shapely

        parts = [self._polygon(rings, where) for rings in polygons]
        if len(parts) == 1:
            return parts[0]
        whole = shapely.multipolygons(shapely.get_parts([p for p in parts if not p.is_empty]))
        return whole if shapely.is_valid(whole) else only_polygons(shapely.union_all(parts))

    def add(self, names: Sequence[str], area: Any, where: str, **told: str) -> None:
        """One annotation; it is left out, and counted, when it has no area.

        Args:
            names: as of an :class:`Annotation`.
            area: what :meth:`area` made.
            where: as of an :class:`Annotation`.
            told: what else is known of one: ``title``, ``colour``, ``identity``.
        """
        if area.is_empty:
            self.leave_out("without an area")
        else:
            names = tuple(dict.fromkeys(names)) or ("",)
            self.drawn.append(Annotation(names, area, where, **told))

    def leave_out(self, what: str) -> None:
        """Count something that is not read."""
        self.notes[f"{what}, left out"] += 1

    def finish(self) -> Annotations:
        """Everything that was added."""
        return Annotations(self.path, self.kind, tuple(self.drawn), _positive(self.notes))

    def _polygon(self, rings: Sequence[Any], where: str) -> Any:
        import shapely

        if not isinstance(rings, Sequence):
            raise AnnotationError(f"{self.path}: {where} has no list of x, y points")
        outline, *holes = [self._ring(ring, where) for ring in rings] or [np.empty((0, 2))]
        if _is_line(outline):
            return shapely.Polygon()
        polygon = shapely.Polygon(outline, [hole for hole in holes if not _is_line(hole)])
        if shapely.is_valid(polygon):
            return polygon if polygon.area > 0 else shapely.Polygon()
        even_odd = only_polygons(shapely.make_valid(polygon))
        filled = only_polygons(
            shapely.make_valid(polygon, method="structure", keep_collapsed=False)
        )
        if abs(even_odd.area - filled.area) > CLEAR * max(even_odd.area, filled.area):
            raise AnnotationError(
                f"{self.path}: {where} crosses itself so that its inside is not clear:"
                f" {even_odd.area:.0f} px² when what is enclosed twice is outside,"
                f" {filled.area:.0f} px² when it is inside; draw it anew, or as two"
            )
        if even_odd.area > 0:
            self.notes["crossing itself, repaired"] += 1
        return even_odd

    def _ring(self, ring: Any, where: str) -> NDArray[np.float64]:
        try:
            points = _points(ring)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise AnnotationError(f"{self.path}: {where} has no list of x, y points") from error
        on_earth = np.abs(points) <= FARTHEST  # false for NaN
        if not on_earth.all():
            bad = int(np.flatnonzero(~on_earth.all(axis=1))[0])
            raise AnnotationError(
                f"{self.path}: {where}: point {bad} is {tuple(points[bad].tolist())},"
                f" coordinates must be numbers of pixels up to {FARTHEST:g}"
            )
        return points


def _points(ring: Any) -> NDArray[np.float64]:
    """``(n, 2)``; a third number of a point is dropped."""
    try:
        points = np.asarray(ring, np.float64)
        if points.ndim == 2 and points.shape[1] >= 2:
            return points[:, :2]
    except ValueError:
        pass  # some points of two and some of three numbers
    return np.array([(point[0], point[1]) for point in ring], np.float64).reshape(-1, 2)


def _is_line(ring: NDArray[np.float64]) -> bool:
    """Fewer than three different points; of which there are seldom many."""
    return len(ring) < 8 and len(np.unique(ring, axis=0)) < 3


def only_polygons(geometry: Any) -> Any:
    """The part of a geometry that has an area."""
    import shapely

    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = shapely.get_parts(geometry)
    parts = [part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def _positive(notes: Mapping[str, int]) -> dict[str, int]:
    return {what: count for what, count in notes.items() if count}
