"""PolygonRegions: regions that were drawn as outlines."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.annotation import Annotations, only_polygons
from pathology.annotations.classes import Class, Classes, Key, folded
from pathology.annotations.regions import check_names
from pathology.errors import AnnotationError

PIECE_POINTS = 256  # an outline is cut up until no piece of it has more
BOXES = 2**14  # held at once, with the pieces under them


class PolygonRegions:
    """Classes of a slide made of drawn areas.

    A class is the union of the annotations that it includes, less those that it excludes; where two
    classes overlap the area counts for both. Everything drawn counts as annotated, what a class
    excludes too, but not the holes of an outline.

    Args:
        annotations: what was drawn, placed on the slide.
        classes: which annotations make which class.

    Raises:
        AnnotationError: an annotation that the mapping does not mention: left out, it would turn
            what somebody named into nothing without a word.
    """

    def __init__(self, annotations: Annotations, classes: Classes) -> None:
        keys = [classes.mentioned(one.names) for one in annotations.drawn]
        unknown = Counter(
            one.names[0] for one, key in zip(annotations.drawn, keys, strict=True) if key is None
        )
        if unknown:
            listed = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common(8))
            raise AnnotationError(
                f"{annotations.path}: no class mentions {listed}; add each to a class or to"
                ' "ignore", or "*" to one of them for all the rest'
            )
        self.notes: Mapping[str, int] = annotations.notes
        self._names = tuple(classes)
        self._drawn: dict[Key, list[Any]] = {}
        for one, key in zip(annotations.drawn, keys, strict=True):
            if key is not None:
                self._drawn.setdefault(key, []).append(one.geometry)
        self._classes = classes
        self._areas: dict[tuple[frozenset[Key], frozenset[Key]], _Area] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def covered(
        self, boxes: NDArray[np.float64], names: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        names = check_names(self._names, names)
        shares = [self._area(self._classes[name]).shares(boxes) for name in names]
        return np.stack(shares) if shares else np.empty((0, len(boxes)))

    def annotated(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        everything = set(self._drawn) - {folded(key) for key in self._classes.ignore}
        return self._area(Class(tuple(everything))).shares(boxes)

    def points(self, name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        (name,) = check_names(self._names, [name])
        area = self._area(self._classes[name])
        if not len(area.pieces):
            raise ValueError(f"class {name!r} has no area on this slide, no points can lie in it")
        return area.points(count, rng)

    def _area(self, one: Class) -> "_Area":
        """The area of some annotations, made when first needed."""
        include = self._drawn.keys() & set(map(folded, one.include))
        exclude = self._drawn.keys() & set(map(folded, one.exclude))
        key = frozenset(include), frozenset(exclude)
        if key not in self._areas:
            self._areas[key] = _Area(self._parts(include), self._parts(exclude))
        return self._areas[key]

    def _parts(self, keys: Iterable[Key]) -> list[Any]:
        return [geometry for key in keys for geometry in self._drawn[key]]


class _Area:
    """An area in pieces of few points each, so that the part under a box is found and cut fast."""

    def __init__(self, include: Sequence[Any], exclude: Sequence[Any]) -> None:
        import shapely

        self.pieces = np.array(list(_pieces(include, exclude)), object)
        shapely.prepare(self.pieces)
        self._tree = shapely.STRtree(self.pieces)
        self._triangles: NDArray[np.float64] | None = None

    def shares(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fraction of each box that lies in the area."""
        import shapely

        share = np.zeros(len(boxes))
        for start in range(0, len(boxes), BOXES):
            x, y, width, height = np.asarray(boxes[start : start + BOXES], np.float64).T
            squares = shapely.box(x, y, x + width, y + height)
            which, piece = self._tree.query(squares, predicate="intersects")
            inside = shapely.covers(self.pieces[piece], squares[which])
            part = np.where(inside, width[which] * height[which], 0.0)
            cut = shapely.intersection(self.pieces[piece[~inside]], squares[which[~inside]])
            part[~inside] = shapely.area(cut)
            share[start : start + BOXES] = np.bincount(which, part, len(x)) / (width * height)
        return share.clip(0, 1)

    def points(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Triangles are chosen by area, and a place in one by folding the unit square."""
        import shapely

        if self._triangles is None:
            parts = shapely.get_parts(shapely.constrained_delaunay_triangles(self.pieces))
            self._triangles = shapely.get_coordinates(parts).reshape(-1, 4, 2)[:, :3]
        a, b, c = self._triangles.transpose(1, 0, 2)
        (ux, uy), (vx, vy) = (b - a).T, (c - a).T
        areas = np.abs(ux * vy - uy * vx)
        chosen = rng.choice(len(areas), count, p=areas / areas.sum())
        u, v = rng.random((2, count, 1))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def _pieces(include: Sequence[Any], exclude: Sequence[Any]) -> Iterator[Any]:
    """Disjoint polygons of few points that together are what lies in ``include`` only.

    The plane is halved until little is left in a part, and only then are areas united and cut out:
    all of them at once take minutes where a thousand outlines overlap.
    """
    import shapely

    waiting = [(np.array(include, object), np.array(exclude, object))]
    while waiting:
        inside, outside = waiting.pop()
        if not len(inside):
            continue
        points = _points(inside, outside)
        halves = _halves(inside, outside) if points > PIECE_POINTS else []
        # Where most outlines reach into both halves, halving gains nothing.
        if halves and sum(_points(*half) for half in halves) < 1.5 * points:
            waiting += halves
            continue
        is_united = len(inside) == 1 and not len(outside)
        united = inside[0] if is_united else _difference(inside, outside)
        if points > PIECE_POINTS and not is_united:
            waiting.append((np.array([united], object), outside[:0]))
            continue
        parts = shapely.get_parts(only_polygons(united))
        yield from parts[shapely.area(parts) > 0]


def _points(*geometries: NDArray[Any]) -> int:
    import shapely

    return sum(int(shapely.get_num_coordinates(some).sum()) for some in geometries)


def _difference(inside: NDArray[Any], outside: NDArray[Any]) -> Any:
    import shapely

    united = shapely.union_all(inside)
    return shapely.difference(united, shapely.union_all(outside)) if len(outside) else united


def _halves(inside: NDArray[Any], outside: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Both, cut along the middle of the longer side of what the first covers."""
    import shapely

    left, top, right, bottom = shapely.total_bounds(inside)
    if right - left > bottom - top:
        middle = (left + right) / 2
        boxes = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = (top + bottom) / 2
        boxes = (left, top, right, middle), (left, middle, right, bottom)
    return [(_clip(inside, box), _clip(outside, box)) for box in boxes]


def _clip(geometries: NDArray[Any], box: tuple[float, float, float, float]) -> NDArray[Any]:
    """The polygons inside of a box, those with an area."""
    import shapely

    left, top, right, bottom = shapely.bounds(geometries).T
    touches = (left < box[2]) & (right > box[0]) & (top < box[3]) & (bottom > box[1])
    inside = (left >= box[0]) & (right <= box[2]) & (top >= box[1]) & (bottom <= box[3])
    across = geometries[touches & ~inside]
    if not len(across):
        return geometries[inside]
    clipped = shapely.clip_by_rect(across, *box)
    # It is ten times faster than an intersection and may, by its documentation, fail.
    failed = ~shapely.is_valid(clipped)
    clipped[failed] = shapely.intersection(across[failed], shapely.box(*box))
    kind = shapely.get_type_id(clipped)
    other = (kind != 3) & (kind != 6)  # neither polygon nor multipolygon
    clipped[other] = [only_polygons(one) for one in clipped[other]]
    return np.concatenate([geometries[inside], clipped[shapely.area(clipped) > 0]])
