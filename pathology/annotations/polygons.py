"""PolygonRegions: regions that were drawn as outlines."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.annotation import Annotations
from pathology.annotations.classes import Classes, Key, folded
from pathology.annotations.regions import check_names
from pathology.errors import AnnotationError

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

PIECE_POINTS = 64  # an outline is cut up until no piece of it has more
PAIRS = 2**18  # boxes times pieces under them that are held at once


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
        self._drawn: dict[Key, list[Polygon | MultiPolygon]] = {}
        for one, key in zip(annotations.drawn, keys, strict=True):
            if key is not None:
                self._drawn.setdefault(key, []).append(one.geometry)
        self._classes = classes
        self._areas: dict[str | None, _Area] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def geometry(self, name: str) -> "Polygon | MultiPolygon":
        """The whole area of a class, in level-0 pixels; may be empty."""
        import shapely

        (name,) = check_names(self._names, [name])
        one = self._classes[name]
        area = shapely.union_all(self._parts(one.include))
        return shapely.difference(area, shapely.union_all(self._parts(one.exclude)))

    def covered(
        self, boxes: NDArray[np.float64], names: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        names = check_names(self._names, names)
        shares = [self._area(name).shares(boxes) for name in names]
        return np.stack(shares) if shares else np.empty((0, len(boxes)))

    def annotated(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._area(None).shares(boxes)

    def points(self, name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        (name,) = check_names(self._names, [name])
        area = self._area(name)
        if not len(area.pieces):
            raise ValueError(f"class {name!r} has no area on this slide, no points can lie in it")
        return area.points(count, rng)

    def _parts(self, keys: Sequence[Key]) -> list[Any]:
        return [geometry for key in keys for geometry in self._drawn.get(folded(key), [])]

    def _area(self, name: str | None) -> "_Area":
        """The area of a class, of everything annotated for ``None``; made when first needed."""
        import shapely

        if name not in self._areas:
            if name is None:
                ignored = {folded(key) for key in self._classes.ignore}
                keys = [key for key in self._drawn if key not in ignored]
                self._areas[name] = _Area(shapely.union_all(self._parts(keys)))
            else:
                self._areas[name] = _Area(self.geometry(name))
        return self._areas[name]


class _Area:
    """An area in pieces of few points each, so that the part under a box is found and cut fast."""

    def __init__(self, geometry: Any) -> None:
        import shapely

        self.pieces: NDArray[Any] = np.array(list(_pieces(geometry)), object)
        shapely.prepare(self.pieces)
        self._tree = shapely.STRtree(self.pieces)
        self._triangles: NDArray[np.float64] | None = None

    def shares(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fraction of each box that lies in the area."""
        import shapely

        share = np.zeros(len(boxes))
        x, y, width, height = np.asarray(boxes, np.float64).T
        squares = shapely.box(x, y, x + width, y + height)
        step = max(1, PAIRS // 16)
        for start in range(0, len(boxes), step):
            which, piece = self._tree.query(squares[start : start + step], predicate="intersects")
            which += start
            inside = shapely.covers(self.pieces[piece], squares[which])
            part = np.where(inside, width[which] * height[which], 0.0)
            edge = ~inside
            cut = shapely.intersection(self.pieces[piece[edge]], squares[which[edge]])
            part[edge] = shapely.area(cut)
            share += np.bincount(which, part, len(boxes))
        return np.clip(share / (width * height), 0, 1)

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


def _pieces(geometry: Any) -> Iterator[Any]:
    """Disjoint polygons of at most ``PIECE_POINTS`` points that together are ``geometry``."""
    import shapely

    waiting = list(shapely.get_parts(geometry))
    while waiting:
        piece = waiting.pop()
        if piece.geom_type != "Polygon" or piece.is_empty:
            continue  # lines and points are where a cut runs along an outline
        if shapely.get_num_coordinates(piece) <= PIECE_POINTS:
            yield piece
            continue
        left, top, right, bottom = piece.bounds
        if right - left > bottom - top:
            middle = (left + right) / 2
            halves = (left, top, middle, bottom), (middle, top, right, bottom)
        else:
            middle = (top + bottom) / 2
            halves = (left, top, right, middle), (left, middle, right, bottom)
        for half in halves:
            waiting.extend(shapely.get_parts(shapely.intersection(piece, shapely.box(*half))))
