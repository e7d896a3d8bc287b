"""Classes by the values of masks."""

import numpy as np
import pytest
from scipy import stats

from pathology.annotations import Classes, RasterRegions, rasters
from pathology.errors import AnnotationError
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap

BOX = Box(100, 50, 800, 600)  # a mask of a part of the slide: 40 x 30 px of 20 level-0 px


def made(values, mapping, box=BOX):
    return RasterRegions(SlideMap(values, box, Mpp(0.5, 0.5)), Classes.of(mapping))


def values(seed=0):
    return np.random.default_rng(seed).integers(0, 5, (30, 40)).astype(np.uint8)


def boxes(count=50, seed=1):
    rng = np.random.default_rng(seed)
    return np.c_[rng.uniform(0, 900, (count, 2)), rng.uniform(5, 300, (count, 2))]


def reference(mask, where):
    """Pixel by pixel."""
    shares = np.zeros(len(where))
    for i, (x, y, w, h) in enumerate(where):
        for row, column in zip(*np.nonzero(mask), strict=True):
            left, top = BOX.x + 20 * column, BOX.y + 20 * row
            dx = min(x + w, left + 20) - max(x, left)
            dy = min(y + h, top + 20) - max(y, top)
            shares[i] += max(dx, 0) * max(dy, 0) / (w * h)
    return shares


@pytest.mark.parametrize("band_px", [1, 200, 2**22])
def test_areas_are_those_of_one_pixel_after_the_other(monkeypatch, band_px):
    monkeypatch.setattr(rasters, "BAND_PX", band_px)
    raster, where = values(), boxes()
    regions = made(raster, {"a": [1, 4], "zero": 0, "other": ["*"]})
    expected = [reference(np.isin(raster, some), where) for some in ([1, 4], [0], [2, 3])]
    np.testing.assert_allclose(regions.covered(where), expected, atol=1e-9)
    np.testing.assert_allclose(regions.annotated(where), sum(expected), atol=1e-9)
    np.testing.assert_array_equal(
        regions.covered(where, ["other", "a"]), regions.covered(where)[[2, 0]]
    )


def test_what_counts_as_annotated():
    raster, where = values(), boxes()
    annotated = {
        "not mentioned": ({"a": 1}, [1, 2, 3, 4]),
        "zero as a class": ({"a": 1, "b": 0}, [0, 1, 2, 3, 4]),
        "ignored": ({"a": 1, "ignore": [2, 3]}, [1, 4]),
        "all others ignored": ({"a": 1, "ignore": ["*"]}, [1]),
        "cut out": ({"a": {"include": [1], "exclude": [2]}}, [1, 2, 3, 4]),
    }
    for what, (mapping, expected) in annotated.items():
        found = made(raster, mapping).annotated(where)
        np.testing.assert_allclose(
            found, reference(np.isin(raster, expected), where), atol=1e-9, err_msg=what
        )


def test_other_boxes_are_not_answered_from_memory():
    regions = made(values(), {"a": 1})
    where = boxes()
    before = regions.covered(where).copy()
    where[:, 0] += 37
    np.testing.assert_allclose(
        regions.covered(where)[0], reference(values() == 1, where), atol=1e-9
    )
    assert not np.allclose(before, regions.covered(where))


@pytest.mark.parametrize("band_px", [200, 2**22])
def test_points_are_uniform_over_the_pixels_of_a_class(monkeypatch, band_px):
    """Chi-square over quarters of pixels, at 1e-4 of chance."""
    monkeypatch.setattr(rasters, "BAND_PX", band_px)
    raster = values()
    points = made(raster, {"a": [1, 4]}).points("a", 40_000, np.random.default_rng(0))
    x, y = ((points - [BOX.x, BOX.y]) / 10).T
    counts = np.histogram2d(y, x, bins=[np.arange(61), np.arange(81)])[0]
    inside = np.kron(np.isin(raster, [1, 4]), np.ones((2, 2))).astype(bool)
    assert counts[~inside].sum() == 0
    expected = len(points) / inside.sum()
    statistic = ((counts[inside] - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-4, inside.sum() - 1)
    # In whatever order they are used, they are from everywhere.
    assert abs(np.corrcoef(np.arange(len(y)), y)[0, 1]) < 0.02


def test_refuses():
    with pytest.raises(AnnotationError, match="name no values of a mask; list whole numbers"):
        made(values(), {"a": ["Tumor"]})
    regions = made(values(), {"a": 1, "b": 9})
    with pytest.raises(ValueError, match="class 'b' has no area on this slide"):
        regions.points("b", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no class is called 'c'; one of a, b"):
        regions.covered(boxes(), ["c"])
