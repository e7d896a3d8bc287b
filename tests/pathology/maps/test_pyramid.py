import numpy as np
import pytest

from pathology.geometry import Box, Mpp
from pathology.maps.pyramid import shrink
from pathology.maps.slide_map import SlideMap


@pytest.fixture
def slide_map():
    """Odd sides on every level, a third of it uncovered, one stretch of it in blocks."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((211, 333)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[100:180, 20:150] = np.nan
    return SlideMap(values, Box(0.0, 0.0, 333 * 31.6, 211 * 20.0), Mpp(0.25, 0.4), "logit")


def test_shrink_keeps_the_sum_and_the_place(slide_map):
    small = shrink(slide_map, 100)
    assert small.values.shape == (53, 84)
    assert small.sum() == pytest.approx(slide_map.sum(), abs=1e-9)
    assert small.downsample == pytest.approx((4 * 31.6, 80.0))
    assert shrink(slide_map, 333) is slide_map


def test_shrink_in_strips_equals_whole(slide_map, monkeypatch):
    whole = shrink(slide_map, 50, "mean").values
    monkeypatch.setattr("pathology.maps.pyramid.STRIP_ROWS", 2)
    np.testing.assert_array_equal(shrink(slide_map, 50, "mean").values, whole)


def test_a_map_that_was_changed_in_memory_alone_counts_as_it_is(slide_map, tmp_path):
    slide_map.values.tofile(tmp_path / "raw")
    changed = np.memmap(tmp_path / "raw", np.float32, mode="c", shape=slide_map.values.shape)
    changed[:] = 1.0
    small = shrink(SlideMap(changed, slide_map.box, slide_map.slide_mpp), 100)
    assert small.sum() == changed.size
