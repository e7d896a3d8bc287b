"""Outlines made valid, and placed on a slide."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from skimage.measure import points_in_poly

from pathology.annotations.annotation import Drawing
from pathology.errors import AnnotationError
from tests.pathology.annotations.made import Source, annotations

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def drawing():
    return Drawing(Path("made.xml"), "asap")


def area(*polygons):
    return drawing().area(polygons, "feature 3")


def test_outlines_and_holes():
    assert area([SQUARE]).area == 100
    assert area([[*SQUARE, SQUARE[0]]]).area == 100  # closed, as GeoJSON has it
    assert area([SQUARE, [(2, 2), (4, 2), (4, 4), (2, 4)]]).area == 96
    assert area([SQUARE], [[(5, 5), (15, 5), (15, 15), (5, 15)]]).area == 175  # overlap once
    assert area([[(x, y, 7) for x, y in SQUARE]]).area == 100
    assert area([[(0, 0, 7), *SQUARE[1:]]]).area == 100
    assert area([np.array(SQUARE)]).area == 100


@pytest.mark.parametrize(
    "ring", [[], [(0, 0)], [(0, 0), (5, 5)], [(0, 0), (5, 5), (0, 0)], [(0, 0), (1, 1), (2, 2)]]
)
def test_what_has_no_area_is_left_out_and_counted(ring):
    made = drawing()
    made.add(["a"], made.area([[ring]], "feature 0"), "feature 0")
    made.add(["a"], made.area([[SQUARE]], "feature 1"), "feature 1")
    found = made.finish()
    assert [one.where for one in found.drawn] == ["feature 1"]
    assert found.notes == {"without an area, left out": 1}


def test_a_line_that_crosses_itself_is_repaired_and_counted():
    made = drawing()
    bow_tie = made.area([[[(0, 0), (10, 10), (10, 0), (0, 10)]]], "feature 0")
    assert bow_tie.is_valid
    assert bow_tie.area == 50
    # A hand-drawn outline whose end overshoots its start: a loop of 1 by 1 px.
    loop = [(0, 0), (100, 0), (100, 100), (-1, 100), (-1, 1), (0, 1)]
    assert made.area([[loop]], "feature 1").is_valid
    made.add(["a"], bow_tie, "feature 0")
    assert made.finish().notes["crossing itself, repaired"] >= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_repaired_outline_is_what_an_even_odd_fill_shows(seed):
    """A shaky hand that crosses its own line in loops; inside as scikit-image counts crossings."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 300) + rng.normal(0, 0.015, 300)
    outline = np.c_[100 * np.cos(angle), 60 * np.sin(angle)] + rng.normal(0, 0.05, (300, 2))
    assert not shapely.Polygon(outline).is_valid
    made = area([outline])
    places = rng.uniform(-110, 110, (5000, 2))
    near = shapely.distance(shapely.LinearRing(outline), shapely.points(places)) < 1e-9
    expected = points_in_poly(places, outline)
    found = shapely.contains_xy(made, places)
    np.testing.assert_array_equal(found[~near], expected[~near])
    assert 500 < found.sum() < 4500


def test_a_line_that_winds_twice_is_refused():
    twice = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (1, 1), (9, 1), (9, 9), (1, 9), (1, 1)]
    with pytest.raises(
        AnnotationError, match=r"made.xml: feature 3 crosses itself .* 36 px² .* 100"
    ):
        area([twice])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e308, -1e13])
def test_numbers_that_no_slide_has_name_the_point(bad):
    with pytest.raises(AnnotationError, match="feature 3: point 1 is"):
        area([[(0, 0), (bad, 5), (5, 5)]])


@pytest.mark.parametrize("ring", [[1, 2, 3], [(0,), (1,)], 5, [("a", "b")], [None], {"x": 1}])
def test_what_is_no_ring_is_refused(ring):
    with pytest.raises(AnnotationError, match="feature 3 has no list of x, y points"):
        area([ring])


def test_placed_at_the_origin_and_cut_at_the_edge():
    made = annotations(inside=shapely.box(10, 10, 20, 20), over=shapely.box(-5, 0, 5, 10))
    found = made.placed(Source())
    assert found.drawn[0].geometry.equals(shapely.box(10, 10, 20, 20))
    assert found.drawn[1].geometry.equals(shapely.box(0, 0, 5, 10))
    assert found.notes == {"cut at the slide's edge": 1}
    moved = made.placed(Source(), (100, 50))
    assert moved.drawn[1].geometry.equals(shapely.box(95, 50, 105, 60))
    assert moved.notes == {}
    assert made.drawn[1].geometry.equals(shapely.box(-5, 0, 5, 10))  # not changed itself
    assert annotations().placed(Source()).drawn == ()


@pytest.mark.parametrize(
    ("box", "distance"),
    [((1010, 0, 1020, 5), 10), ((-30, 0, -20, 5), 20), ((0, 830, 9, 840), 30), ((0, -9, 9, -7), 7)],
)
def test_outside_of_the_slide_names_which_and_how_far(box, distance):
    made = annotations(a=shapely.box(0, 0, 10, 10), b=shapely.box(*box))
    with pytest.raises(
        AnnotationError,
        match=rf"made.geojson: feature b lies outside of slide case, 1000 x 800 px, by {distance}"
        r" px \(1 of 2 do\)",
    ):
        made.placed(Source())


def test_mostly_outside_is_another_slide():
    assert (
        annotations(a=shapely.box(900, 0, 1090, 10)).placed(Source()).drawn[0].geometry.area == 1000
    )
    with pytest.raises(AnnotationError, match="only 48% of what was drawn lies on slide case"):
        annotations(a=shapely.box(900, 0, 1110, 10)).placed(Source())


def test_touching_the_edge_from_outside_is_outside():
    with pytest.raises(AnnotationError, match="outside of slide"):
        annotations(a=shapely.box(1000, 0, 1010, 10)).placed(Source())


def test_collections_keep_their_polygons():
    made = drawing()
    triangle_and_line = made.area([[[(0, 0), (10, 0), (10, 10), (0, 0), (-5, 0)]]], "feature 0")
    assert triangle_and_line.geom_type in ("Polygon", "MultiPolygon")
    assert np.isclose(triangle_and_line.area, 50)
