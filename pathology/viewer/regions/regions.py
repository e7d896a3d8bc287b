"""Regions as a page sends them: checked, made valid, and cut at the slide.

A lasso that crosses itself is filled: what its line encloses is inside, and counts once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.annotation import FARTHEST, only_polygons
from pathology.errors import AnnotationError
from pathology.geometry import Box

MOST_REGIONS = 1000
MOST_POINTS = 500_000
"""Of all regions of one request."""
MOST_CROSSINGS = 20_000
"""That a line of its length would have with itself, if it ran at random in its box: above it, all
that is asked of the line would take very long."""
LONGEST_NAME = 500


@dataclass(frozen=True)
class Region:
    """A part of a slide.

    Args:
        id: what the page names it by.
        name: what a person calls it.
        geometry: a valid polygon or multipolygon with an area, on the slide, in level-0 pixels.
        classes: what kind of tissue it was drawn as, most specific first.
        colour: to draw it in, ``"#rrggbb"``, or nothing.
    """

    id: str
    name: str
    geometry: Any
    classes: tuple[str, ...] = ()
    colour: str = ""


def parse_regions(body: Any, slide: Box) -> list[Region]:
    """The regions of a request, ``{"regions": [{id, name?, classes?, colour?, polygons}, ...]}``.

    Args:
        body: what its JSON holds.
        slide: the whole slide.

    Raises:
        AnnotationError: it is no such object, holds too much, or a region that is none, see
            :func:`parse_polygons`.
    """
    told = body.get("regions") if isinstance(body, Mapping) else None
    if not isinstance(told, list):
        raise AnnotationError('regions are sent as {"regions": [{id, polygons}, ...]}')
    if len(told) > MOST_REGIONS:
        raise AnnotationError(f"{len(told):,} regions, at most {MOST_REGIONS:,} in one request")
    budget = MOST_POINTS
    regions = []
    for i, one in enumerate(told):
        if not isinstance(one, Mapping):
            raise AnnotationError(f"region {i} is no object with id and polygons")
        name = _text(one, "name", i)
        where = f"region {name!r}" if name else f"region {i}"
        budget -= _points(one.get("polygons"), where, budget)
        classes = one.get("classes") or []
        if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
            raise AnnotationError(f"{where}: classes must be a list of texts")
        colour = _text(one, "colour", i)
        if colour and not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise AnnotationError(f"{where}: colour must be #rrggbb, got {colour!r}")
        regions.append(
            Region(
                id=_text(one, "id", i) or str(i),
                name=name,
                geometry=parse_polygons(one.get("polygons"), slide, where),
                classes=tuple(classes),
                colour=colour,
            )
        )
    return regions


def parse_polygons(polygons: Any, slide: Box, where: str = "the region") -> Any:
    """Polygons of a request as one valid geometry, on the slide.

    Args:
        polygons: ``[[outline, hole, ...], ...]`` of lists of ``[x, y]`` in level-0 pixels, closed
            or not. Where polygons overlap, the area counts once.
        slide: the whole slide; what lies beside it is cut off.
        where: what messages call it.

    Raises:
        AnnotationError: it is no such list, of too many points, or with a coordinate that is no
            finite number; or it has no area on the slide, or crosses itself all over.
    """
    import shapely

    _points(polygons, where, MOST_POINTS)
    parts = [enclosed([_ring(ring, where) for ring in rings]) for rings in polygons]
    whole = parts[0] if len(parts) == 1 else shapely.multipolygons(_flat(parts))
    if not shapely.is_valid(whole):
        whole = only_polygons(shapely.union_all(parts))
    if not whole.area > 0:
        raise AnnotationError(f"{where} has no area; draw around what is meant")
    left, top, right, bottom = whole.bounds
    if left >= slide.x and top >= slide.y and right <= slide.right and bottom <= slide.bottom:
        return whole
    frame = shapely.box(slide.x, slide.y, slide.right, slide.bottom)
    cut = only_polygons(shapely.intersection(whole, frame))
    if not cut.area > 0:
        size = f"{slide.width:g} x {slide.height:g} px"
        raise AnnotationError(f"{where} lies outside of the slide, {size}")
    return cut


def enclosed(rings: Sequence[Any]) -> Any:
    """What an outline encloses without what its holes do, as a valid geometry; it may be empty.

    Args:
        rings: the outline and its holes, each ``(n, 2)`` in level-0 pixels, n at least 3.
    """
    import shapely

    outline, *holes = rings
    polygon = shapely.Polygon(outline, holes)
    if shapely.is_valid(polygon):
        return polygon
    filled = _filled(outline)
    if holes:
        holed = shapely.union_all([_filled(hole) for hole in holes])
        filled = only_polygons(shapely.difference(filled, holed))
    return filled


def rings_of(geometry: Any) -> list[list[list[list[float]]]]:
    """A geometry as JSON has it, see :func:`parse_polygons`; rings are closed."""
    import shapely

    return [
        [shapely.get_coordinates(ring).tolist() for ring in shapely.get_rings(polygon)]
        for polygon in shapely.get_parts(geometry)
    ]


def _points(polygons: Any, where: str, most: int) -> int:
    """How many points polygons have.

    Raises:
        AnnotationError: more than ``most``, or they are no lists of rings.
    """
    is_list = isinstance(polygons, list) and polygons
    if not is_list or not all(isinstance(rings, list) and rings for rings in polygons):
        raise AnnotationError(f"{where}: polygons must be lists of rings, the outline first")
    rings = [ring for rings in polygons for ring in rings]
    if not all(isinstance(ring, list) for ring in rings):
        raise AnnotationError(f"{where}: a ring must be a list of [x, y]")
    count = sum(map(len, rings))
    if count > most:
        raise AnnotationError(
            f"{where} has {count:,} points, {most:,} are left of the {MOST_POINTS:,} of a request;"
            " simplify the outline"
        )
    return count


def _ring(ring: Sequence[Any], where: str) -> NDArray[np.float64]:
    try:
        points = np.asarray(ring, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(f"{where}: a ring must be a list of [x, y]") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise AnnotationError(f"{where}: a ring must be a list of at least three [x, y]")
    is_place = (np.abs(points) <= FARTHEST).all(axis=1)  # false for NaN
    if not is_place.all():
        bad = int(np.flatnonzero(~is_place)[0])
        raise AnnotationError(
            f"{where}: point {bad} is {tuple(points[bad].tolist())}, coordinates must be numbers of"
            f" level-0 pixels up to {FARTHEST:g}"
        )
    area = np.ptp(points, axis=0).prod()
    length = np.hypot(*np.diff(points, axis=0).T).sum()
    pairs = len(points) ** 2 / 2
    if min(length**2 / (np.pi * area) if area else 0.0, pairs) > MOST_CROSSINGS:
        raise AnnotationError(f"{where} winds or crosses itself all over; draw it anew")
    return points


def _filled(ring: Any) -> Any:
    """All that a closed line encloses."""
    import shapely

    polygon = shapely.Polygon(ring)
    if shapely.is_valid(polygon):
        return polygon
    line = shapely.union_all([shapely.LinearRing(ring)])  # parted where it crosses itself
    faces = shapely.get_parts(shapely.polygonize([line]))
    return only_polygons(shapely.union_all(faces))


def _flat(parts: Sequence[Any]) -> NDArray[Any]:
    import shapely

    return np.asarray(shapely.get_parts([part for part in parts if not part.is_empty]))


def _text(one: Mapping[str, Any], name: str, i: int) -> str:
    text = one.get(name)
    if text is None:
        return ""
    if not isinstance(text, str) or len(text) > LONGEST_NAME:
        raise AnnotationError(f"region {i}: {name} must be a text of at most {LONGEST_NAME}")
    return text
