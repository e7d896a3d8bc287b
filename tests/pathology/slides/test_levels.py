"""Where planes lie, and which one is read."""

import pytest

from pathology.geometry import Size
from pathology.slides.levels import Scale, finest_needed, level_scale, shows_the_slide


@pytest.mark.parametrize(
    ("size", "plane", "factor"),
    [
        ((46000, 32914), (11500, 8228), 4),  # cut
        ((46000, 32914), (2875, 2057), 16),
        ((46000, 32914), (2875, 2058), 16),  # rounded up
        ((1000, 1000), (1000, 1000), 1),
    ],
)
def test_scanners_shrink_by_whole_factors(
    size: tuple[int, int], plane: tuple[int, int], factor: int
) -> None:
    assert level_scale(Size(*size), *plane, True) == (factor, factor)


def test_scaled_planes_take_the_ratio_of_each_side() -> None:
    assert level_scale(Size(9274, 9911), 579, 619, False) == (9274 / 579, 9911 / 619)


def test_what_no_whole_factor_explains_takes_the_ratio() -> None:
    assert level_scale(Size(1000, 1000), 400, 400, True) == (2.5, 2.5)


@pytest.mark.parametrize(
    ("step", "level"), [(0.5, 0), (1, 0), (3.9, 0), (3.97, 1), (4, 1), (15, 1), (16, 2), (500, 2)]
)
def test_the_nearest_finer_plane_is_read(step: float, level: int) -> None:
    scales = [Scale(1, 1), Scale(4.0003, 4.0001), Scale(16, 16)]
    assert finest_needed(scales, step, step) == level


def test_both_axes_must_be_fine_enough() -> None:
    assert finest_needed([Scale(1, 1), Scale(4, 4)], 8, 2) == 0


@pytest.mark.parametrize(
    ("plane", "shows"),
    [
        ((97792, 221184), True),
        ((24448, 55296), True),
        ((3056, 6912), True),
        ((191, 432), True),
        ((192, 431), True),
        ((2, 3), True),  # too small to tell
        ((24576, 55296), False),  # filled up to whole tiles of 512
        ((512, 1024), False),
        ((1280, 431), False),  # a macro picture
        ((431, 431), False),  # a label
    ],
)
def test_a_plane_of_another_shape_is_not_the_slide(plane: tuple[int, int], shows: bool) -> None:
    assert shows_the_slide(Size(97792, 221184), *plane) is shows
