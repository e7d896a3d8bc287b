"""Boxes, and lengths that survive the way to another scale and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathology.geometry import Box, level0_length, pixel_count

MPPS = st.floats(0.05, 50)
REALS = st.floats(-1e6, 1e6)
SIDES = st.floats(1e-3, 1e6)
BOXES = st.builds(Box, REALS, REALS, SIDES, SIDES)


@given(st.integers(1, 100_000), MPPS, MPPS)
def test_pixels_come_back_from_level_0(pixels: int, mpp: float, mpp0: float) -> None:
    assert pixel_count(level0_length(pixels, mpp, mpp0), mpp0, mpp) == pixels


@given(SIDES, MPPS, MPPS)
def test_pixel_count_is_off_by_at_most_half_a_pixel(length: float, mpp0: float, mpp: float) -> None:
    exact = length * mpp0 / mpp
    assert abs(pixel_count(length, mpp0, mpp) - max(exact, 0.5)) <= 0.5 + 1e-9 * exact


def test_pixel_count_is_at_least_one() -> None:
    assert pixel_count(0.001, 0.25, 8) == 1


@given(BOXES, BOXES)
def test_intersection_is_symmetric_and_inside_both(one: Box, other: Box) -> None:
    common = one.intersection(other)
    assert common == other.intersection(one)
    if common is not None:
        for box in (one, other):
            slack = 1e-9 * max(1, *map(abs, (box.x, box.y, box.right, box.bottom)))
            assert box.x <= common.x
            assert box.y <= common.y
            assert common.right <= box.right + slack
            assert common.bottom <= box.bottom + slack


def test_boxes_that_touch_do_not_meet() -> None:
    assert Box(0, 0, 2, 2).intersection(Box(2, 0, 2, 2)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", range(4))
def test_box_refuses_numbers_that_are_not_finite(bad: float, position: int) -> None:
    numbers = [1.0, 1.0, 1.0, 1.0]
    numbers[position] = bad
    with pytest.raises(ValueError, match="finite"):
        Box(*numbers)


@pytest.mark.parametrize("sides", [(0, 1), (1, 0), (-1, 1)])
def test_box_refuses_empty_sides(sides: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="positive sides"):
        Box(0, 0, *sides)
