"""Polygons of requests."""

import numpy as np
import pytest
import shapely

from pathology.errors import AnnotationError
from pathology.geometry import Box
from pathology.viewer.regions import regions
from pathology.viewer.regions.regions import parse_polygons, parse_regions, rings_of

SLIDE = Box(0, 0, 1000, 800)
SQUARE = [[100, 100], [300, 100], [300, 300], [100, 300]]
HOLE = [[150, 150], [200, 150], [200, 200], [150, 200]]
BOW = [[100, 100], [300, 300], [300, 100], [100, 300]]


def circle(turns, points=400, radius=100.0):
    angles = np.linspace(0, 2 * np.pi * turns, points)
    return np.c_[500 + radius * np.cos(angles), 400 + radius * np.sin(angles)].tolist()


@pytest.mark.parametrize(
    ("polygons", "area"),
    [
        ([[SQUARE]], 40_000),
        ([[[*SQUARE, SQUARE[0]]]], 40_000),
        ([[SQUARE[::-1]]], 40_000),
        ([[SQUARE, HOLE]], 37_500),
        ([[SQUARE, HOLE[::-1]]], 37_500),
        ([[SQUARE], [[[500, 500], [510, 500], [510, 510]]]], 40_050),
        ([[SQUARE], [HOLE]], 40_000),  # what overlaps counts once
        ([[SQUARE], [[[200, 100], [400, 100], [400, 300], [200, 300]]]], 60_000),
        ([[SQUARE], [[[300, 100], [400, 100], [400, 300], [300, 300]]]], 60_000),  # a common edge
        ([[SQUARE, HOLE], [HOLE]], 40_000),
        ([[SQUARE, [[50, 50], [200, 50], [200, 200], [50, 200]]]], 30_000),  # a hole over the edge
        ([[[[-500, -500], [100, -500], [100, 100], [-500, 100]]]], 10_000),  # cut at the slide
        ([[SQUARE], [[[5000, 0], [5010, 0], [5010, 10]]]], 40_000),
        ([[[*SQUARE, *SQUARE]]], 40_000),
        ([[[[100, 100], [300, 100], [300, 300], [100, 300], [100, 100], [50, 50], [100, 100]]]],
         40_000),  # a spike
    ],
)  # fmt: skip
def test_areas(polygons, area):
    found = parse_polygons(polygons, SLIDE)
    assert found.is_valid
    assert found.area == pytest.approx(area)
    assert found.geom_type in ("Polygon", "MultiPolygon")
    again = parse_polygons(rings_of(found), SLIDE)
    assert again.equals(found)


@pytest.mark.parametrize(
    ("line", "area"),
    [
        (BOW, 20_000),
        (circle(1), np.pi * 1e4),
        (circle(2.1), np.pi * 1e4),  # twice around is once inside
        # A loop in a loop, run through the other way round: enclosed all the same.
        ([*circle(1), *circle(1, radius=50.0)[::-1]], np.pi * 1e4),
    ],
)
def test_a_lasso_that_crosses_itself_is_filled(line, area):
    found = parse_polygons([[line]], SLIDE)
    assert found.is_valid
    assert found.area == pytest.approx(area, rel=1e-3)


def test_a_pentagram_holds_its_middle():
    points = [[500 + 100 * np.sin(a), 400 - 100 * np.cos(a)] for a in np.arange(5) * 0.8 * np.pi]
    found = parse_polygons([[points]], SLIDE)
    assert found.contains(shapely.Point(500, 400))
    assert len(shapely.get_parts(found)) == 1
    assert not shapely.get_num_interior_rings(found)


def test_what_is_valid_stays_to_the_last_bit():
    ring = (np.random.default_rng(0).random((3, 2)) * 700).tolist()
    found = rings_of(parse_polygons([[ring]], SLIDE))
    assert found == [[[*ring, ring[0]]]]


@pytest.mark.parametrize(
    ("polygons", "words"),
    [
        (None, "polygons must be lists of rings"),
        ([], "polygons must be lists of rings"),
        ([[]], "polygons must be lists of rings"),
        ({"a": 1}, "polygons must be lists of rings"),
        ([["x"]], "a ring must be a list"),
        ([[{}]], "a ring must be a list"),
        ([[SQUARE[:2]]], "at least three"),
        ([[[1, 2, 3]]], "a ring must be a list"),
        ([[[[1, 2, 3], [2, 3, 4], [4, 5, 6]]]], "a ring must be a list"),
        ([[[[1, 2], [3], [4, 5]]]], "a ring must be a list"),
        ([[[["a", 2], [3, 4], [4, 5]]]], "a ring must be a list"),
        ([[[[1, 2], None, [4, 5]]]], "a ring must be a list"),
        ([[[[1, 2], [3, float("nan")], [4, 5]]]], r"point 1 is \(3.0, nan\)"),
        ([[[[1, 2], [3, None], [4, 5]]]], r"point 1 is \(3.0, nan\)"),
        ([[[[1, float("inf")], [3, 4], [4, 5]]]], r"point 0 is \(1.0, inf\)"),
        ([[[[1, 2], [3, 4], [4, 1e10]]]], "up to 1e[+]09"),
        ([[[[1, 2], [3, 4], [4, 10**400]]]], "a ring must be a list"),
        ([[[[1, 1], [2, 2], [3, 3]]]], "has no area"),
        ([[[[1, 1]] * 5]], "has no area"),
        ([[SQUARE, SQUARE]], "has no area"),
        ([[[[2000, 0], [3000, 0], [3000, 100]]]], "lies outside of the slide, 1000 x 800 px"),
        ([[[[0, 0], [1000, 0], [500, -5]]]], "lies outside of the slide"),  # an edge in common
    ],
)  # fmt: skip
def test_what_is_no_region_is_told_in_one_line(polygons, words):
    with pytest.raises(AnnotationError, match=words) as caught:
        parse_polygons(polygons, SLIDE, "region 'north'")
    assert str(caught.value).startswith("region 'north'")
    assert "\n" not in str(caught.value)


def test_too_many_points(monkeypatch):
    with pytest.raises(AnnotationError, match="has 1,000,000 points, 500,000 are left of the 500,"):
        parse_polygons([[[[0, 0]] * 1_000_000]], SLIDE)
    many = {"regions": [{"id": "a", "polygons": [[SQUARE]]}] * (regions.MOST_REGIONS + 1)}
    with pytest.raises(AnnotationError, match="1,001 regions, at most 1,000"):
        parse_regions(many, SLIDE)
    monkeypatch.setattr(regions, "MOST_POINTS", 10)  # of all together
    with pytest.raises(AnnotationError, match="region 2 has 4 points, 2 are left of the 10"):
        parse_regions({"regions": many["regions"][:3]}, SLIDE)


def test_a_scribble_is_refused_at_once():
    """Noding it would take minutes."""
    scribble = (np.random.default_rng(0).random((100_000, 2)) * 700).tolist()
    with pytest.raises(AnnotationError, match="winds or crosses itself all over"):
        parse_polygons([[scribble]], SLIDE)


def test_regions_of_a_request():
    body = {
        "regions": [
            {"id": "a", "name": "north", "classes": ["Tumor"], "polygons": [[SQUARE]]},
            {"polygons": [[BOW]], "colour": "#102030", "name": None},
        ]
    }
    first, second = parse_regions(body, SLIDE)
    assert (first.id, first.name, first.classes, first.colour) == ("a", "north", ("Tumor",), "")
    assert (second.id, second.name, second.classes, second.colour) == ("1", "", (), "#102030")
    assert second.geometry.area == pytest.approx(20_000)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "regions are sent as"),
        ([], "regions are sent as"),
        ({"regions": {}}, "regions are sent as"),
        ({"regions": [3]}, "region 0 is no object"),
        ({"regions": [{"id": "a"}]}, "region 0: polygons must be"),
        ({"regions": [{"id": 3, "polygons": [[SQUARE]]}]}, "region 0: id must be a text"),
        ({"regions": [{"name": "x" * 501, "polygons": [[SQUARE]]}]}, "name must be a text of at"),
        ({"regions": [{"classes": "T", "polygons": [[SQUARE]]}]}, "classes must be a list of"),
        ({"regions": [{"classes": [1], "polygons": [[SQUARE]]}]}, "classes must be a list of"),
        ({"regions": [{"colour": "red", "polygons": [[SQUARE]]}]}, "colour must be #rrggbb"),
        ({"regions": [{"name": "<b>", "polygons": [[SQUARE[:2]]]}]}, "^region '<b>': a ring"),
    ],
)
def test_what_is_no_request(body, words):
    with pytest.raises(AnnotationError, match=words):
        parse_regions(body, SLIDE)
