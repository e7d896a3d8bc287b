"""Classes made of drawn areas."""

import numpy as np
import pytest
import shapely
from scipy import stats

from pathology.annotations import Classes, PolygonRegions, polygons
from pathology.errors import AnnotationError
from tests.pathology.annotations.made import annotations, blob, share


def boxes(count=60, seed=0, extent=1000):
    rng = np.random.default_rng(seed)
    return np.c_[rng.uniform(-100, extent, (count, 2)), rng.uniform(1, 300, (count, 2))]


def regions(mapping, **areas):
    return PolygonRegions(annotations(**areas), Classes.of(mapping))


@pytest.mark.parametrize("piece_points", [8, 256])
def test_areas_are_those_of_one_box_after_the_other(monkeypatch, piece_points):
    monkeypatch.setattr(polygons, "PIECE_POINTS", piece_points)
    monkeypatch.setattr(polygons, "BOXES", 7)
    hole = blob(300, 300, 60, seed=3)
    tumour = [blob(300, 300, 250, 400).difference(hole), blob(700, 600, 200, 90, seed=1)]
    normal = [blob(500, 400, 220, 60, seed=2)]
    made = regions({"tumour": ["t"], "normal": ["n"]}, t=tumour, n=normal)
    where = boxes()
    covered = made.covered(where)
    expected = [share(shapely.union_all(areas), where) for areas in (tumour, normal)]
    np.testing.assert_allclose(covered, expected, atol=1e-12)
    everything = share(shapely.union_all(tumour + normal), where)
    np.testing.assert_allclose(made.annotated(where), everything, atol=1e-12)
    assert (covered.sum(axis=0) > made.annotated(where) + 0.01).any()  # two classes overlap
    np.testing.assert_array_equal(made.covered(where, ["normal"]), covered[1:])
    assert made.covered(where, []).shape == (0, len(where))
    assert made.covered(where[:0]).shape == (2, 0)


def test_many_that_overlap_count_once():
    rng = np.random.default_rng(0)
    many = [blob(x, y, 80, 30, i) for i, (x, y) in enumerate(rng.uniform(0, 1000, (150, 2)))]
    many += [many[0]] * 100  # nothing that halving could part
    where = boxes(40)
    made = regions({"a": ["m"]}, m=many)
    np.testing.assert_allclose(
        made.covered(where)[0], share(shapely.union_all(many), where), atol=1e-12
    )


def test_an_outline_that_cannot_be_parted_evenly():
    teeth = [(4 * i + dx, y) for i in range(300) for dx, y in ((0, 0), (0, 900), (2, 900), (2, 0))]
    comb = shapely.Polygon([*teeth, (1200, -10), (0, -10)])
    assert comb.is_valid
    where = boxes(30)
    made = regions({"a": ["c"]}, c=comb)
    np.testing.assert_allclose(made.covered(where)[0], share(comb, where), atol=1e-12)


def test_exclusions_are_cut_out_and_still_annotated():
    outer, hole = shapely.box(0, 0, 100, 100), shapely.box(40, 40, 60, 60)
    whole = np.array([[0.0, 0, 100, 100]])
    made = regions({"t": {"include": ["_0"], "exclude": ["_2"]}}, _0=outer, _2=hole)
    assert made.covered(whole)[0, 0] == pytest.approx(0.96)
    assert made.annotated(whole)[0] == pytest.approx(1)
    both = regions({"t": {"include": ["_0"], "exclude": ["_2"]}, "n": ["_2"]}, _0=outer, _2=hole)
    np.testing.assert_allclose(both.covered(whole)[:, 0], [0.96, 0.04])
    # The hole of an outline is no annotation.
    holed = regions({"t": ["_0"]}, _0=outer.difference(hole))
    assert holed.annotated(whole)[0] == pytest.approx(0.96)


def test_ignored_areas_are_as_if_not_drawn():
    inner, roi = shapely.box(0, 0, 50, 100), shapely.box(0, 0, 100, 100)
    whole = np.array([[0.0, 0, 100, 100]])
    assert regions({"t": ["t"], "ignore": ["ROI"]}, t=inner, roi=roi).annotated(whole) == 0.5
    assert regions({"t": ["t"], "other": ["*"]}, t=inner, roi=roi).annotated(whole) == 1
    assert regions({"t": ["t"], "ignore": ["*"]}, t=inner, roi=roi).annotated(whole) == 0.5


def test_a_name_that_no_class_mentions_is_an_error_with_its_count():
    areas = {"Tumour": [blob(0, 0, 9), blob(9, 9, 9)], "Necrosis": blob(0, 0, 5)}
    with pytest.raises(
        AnnotationError, match=r"no class mentions 'Tumour' \(2\), 'Necrosis' \(1\)"
    ):
        regions({"tumour": ["Tumor"]}, **areas)


def test_points_are_uniform_over_the_area():
    """Chi-square over cells of a grid, expected counts by exact area; at 1e-4 of chance."""
    area = blob(300, 300, 280, 300).difference(blob(300, 250, 90, seed=4))
    made = regions(
        {"a": ["x"]}, x=[area, blob(350, 300, 200, 50, seed=5), shapely.box(900, 0, 930, 9)]
    )
    union = shapely.union_all([area, blob(350, 300, 200, 50, seed=5), shapely.box(900, 0, 930, 9)])
    points = made.points("a", 20_000, np.random.default_rng(1))
    assert points.shape == (20_000, 2)
    assert shapely.distance(union, shapely.points(points)).max() < 1e-9
    edges = np.arange(-50, 1000, 75.0)
    counts = np.histogram2d(*points.T, bins=[edges, edges])[0].ravel()
    cells = np.array([[x, y, 75, 75] for x in edges[:-1] for y in edges[:-1]])
    expected = share(union, cells) * 75 * 75 / union.area * len(points)
    enough = expected > 5
    statistic = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-4, enough.sum())
    again = made.points("a", 20_000, np.random.default_rng(1))
    np.testing.assert_array_equal(points, again)
    assert made.points("a", 0, np.random.default_rng(1)).shape == (0, 2)


def test_a_class_that_is_not_on_the_slide():
    made = regions({"a": ["x"], "b": ["y"]}, x=blob(5, 5, 5))
    assert made.covered(np.array([[0.0, 0, 10, 10]]))[1, 0] == 0
    with pytest.raises(ValueError, match="class 'b' has no area on this slide"):
        made.points("b", 3, np.random.default_rng(0))
    for call in (
        lambda: made.points("c", 3, np.random.default_rng(0)),
        lambda: made.covered(boxes(), ["c"]),
    ):
        with pytest.raises(ValueError, match="no class is called 'c'; one of a, b"):
            call()


def test_nothing_drawn():
    made = PolygonRegions(annotations(), Classes.of({"a": ["x"]}))
    assert made.covered(boxes(5)).tolist() == [[0] * 5]
    assert made.annotated(boxes(5)).tolist() == [0] * 5
