"""SlideMap against sums over a grid so fine that every box lies on its lines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap

FINE = 4  # cells per map pixel along a side


def slow_box_mean(values: np.ndarray, x: int, y: int, width: int, height: int) -> float:
    """Mean of a map under a box given in cells, zero outside, one cell at a time."""
    total = 0.0
    for row in range(y, y + height):
        for column in range(x, x + width):
            i, j = row // FINE, column // FINE
            if 0 <= i < values.shape[0] and 0 <= j < values.shape[1]:
                total += 0.0 if np.isnan(values[i, j]) else values[i, j]
    return total / (width * height)


@settings(deadline=None)
@given(
    st.integers(-10, 40), st.integers(-10, 30), st.integers(1, 50), st.integers(1, 40), st.data()
)
def test_box_means_are_exact_in_area(
    x: int, y: int, width: int, height: int, data: st.DataObject
) -> None:
    values = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=(5, 7))
    values[1, 2] = np.nan
    cell_x, cell_y, left, top = 2.5, 1.25, 100.0, -3.0
    box = Box(left, top, 7 * FINE * cell_x, 5 * FINE * cell_y)
    slide_map = SlideMap(values, box, Mpp(0.25, 0.5))
    asked = np.array([[left + x * cell_x, top + y * cell_y, width * cell_x, height * cell_y]])
    expected = slow_box_mean(values, x, y, width, height)
    np.testing.assert_allclose(slide_map.box_means(asked), [expected], atol=1e-10)


def test_scale_and_area() -> None:
    slide_map = SlideMap(np.ones((10, 20)), Box(0, 0, 640, 160), Mpp(0.25, 0.5))
    assert slide_map.downsample == (32, 16)
    assert slide_map.mpp == (8, 8)
    assert slide_map.pixel_area_mm2 == pytest.approx(64e-6)


def test_sum_leaves_out_nan_and_does_not_overflow_its_type() -> None:
    values = np.full((100, 100), 60_000, np.float16)
    values[0, 0] = np.nan
    total = SlideMap(values, Box(0, 0, 100, 100), Mpp(1, 1)).sum()
    assert total == pytest.approx(9999 * float(values[1, 1]))


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (0, 4)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="height, width"):
        SlideMap(np.zeros(shape), Box(0, 0, 1, 1), Mpp(1, 1))
