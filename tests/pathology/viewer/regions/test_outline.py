"""Pixels of a pyramid in a polygon, against shapely's area of each."""

import numpy as np
import pytest
import shapely

from pathology.viewer.regions import outline
from pathology.viewer.regions.outline import Outline

RNG = np.random.default_rng(0)
STAR = shapely.Polygon(
    [(20 + r * np.cos(a), 21 + r * np.sin(a)) for a, r in zip(
        np.linspace(0, 2 * np.pi, 40, endpoint=False), RNG.uniform(6, 19, 40), strict=True)]
)  # fmt: skip
SHAPES = {
    "star": STAR,
    "holed": STAR.difference(shapely.Point(20, 21).buffer(3.3)),
    "parts": shapely.MultiPolygon([shapely.box(0, 0, 4, 4), shapely.box(4, 4, 9.5, 30.25)]),
    "sliver": shapely.Polygon([(1.2, 1.1), (38.9, 35.3), (38.9, 35.31)]),
    "square": shapely.box(8, 16, 24, 32),
    "clockwise": shapely.Polygon([(3, 3), (3, 9), (9, 9), (9, 3)]),
    "with its hole the same way": shapely.Polygon(
        [(3, 3), (3, 19), (19, 19), (19, 3)], [[(5, 5), (5, 9), (9, 9), (9, 5)]]
    ),
}
SIDE = 48


def shares(level, shape):
    """Of each pixel's area, ``(SIDE / 2**level, SIDE / 2**level)``."""
    edges = np.arange(0, SIDE, 2**level)
    left, top = np.meshgrid(edges, edges)
    pixels = shapely.box(left, top, left + 2**level, top + 2**level)
    return shapely.area(shapely.intersection(pixels, shape)) / 4.0**level


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("pieces", [1 << 18, 7])
def test_every_pixel_of_every_level(name, pieces, monkeypatch):
    monkeypatch.setattr(outline, "PIECES", pieces)  # several chunks must add up to one
    found = Outline.of(SHAPES[name])
    finest = shares(0, SHAPES[name])
    for level in range(4):
        wanted = shares(level, SHAPES[name])
        assert found.level == level
        rows, columns, got = found.cut()
        np.testing.assert_allclose(got, wanted[rows, columns], atol=1e-12)
        whole = np.zeros(wanted.shape, int)
        for row, first, end in zip(*found.runs(), strict=True):
            whole[row, first:end] += 1
        np.testing.assert_array_equal(whole, wanted > 1 - 1e-9)
        y, x = np.indices(wanted.shape).reshape(2, -1)
        np.testing.assert_array_equal(found.are_whole(y, x).reshape(wanted.shape), whole)
        cut = np.zeros(wanted.shape, bool)
        cut[rows, columns] = True
        blocks = finest.reshape(len(wanted), 2**level, len(wanted), 2**level)
        is_cut = ((blocks > 1e-9) & (blocks < 1 - 1e-9)).any(axis=(1, 3))
        np.testing.assert_array_equal(cut, is_cut | ((wanted > 1e-9) & (wanted < 1 - 1e-9)))
        found = found.coarser()


def test_nothing_has_no_pixels():
    found = Outline.of(shapely.MultiPolygon())
    assert len(found.keys) == 0
    assert not found.are_whole(np.arange(3), np.arange(3)).any()
    assert all(len(each) == 0 for each in (*found.runs(), *found.cut()))
    assert len(found.coarser().keys) == 0
