"""Maps as they travel: int16 with one step."""

import numpy as np
import pytest

from pathology.errors import PathologyError
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.slide_map import SlideMap
from pathology.maps.stored_map import StoredMap
from pathology.viewer.evidence.heat_tiles import NOTHING, heat_tile, step_of, whole_numbers
from pathology.viewer.evidence.maps import OneMap
from pathology.viewer.library.library import UnknownIdError

AREA_MM2 = 6.0 * 5.0 * 1e-6  # of a pixel of 24 x 20 px of 0.25 um


@pytest.fixture(scope="module", params=["sum", "mean"])
def heat_map(request, tmp_path_factory):
    """Values over eight orders of magnitude, a third of them missing; two levels, odd sides."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((531, 700)) * 10.0 ** rng.integers(-8, 1, (531, 700))).astype(
        "f4"
    )
    values[rng.random(values.shape) < 0.3] = np.nan
    values[7, 11] = -23.0  # the largest by far
    slide_map = SlideMap(values, Box(0, 0, 700 * 24, 531 * 20), Mpp(0.25, 0.25), "logit")
    path = tmp_path_factory.mktemp("heat") / "map.ome.tif"
    return OneMap("heatmap", StoredMap(write_ome_tiff(slide_map, path, request.param)), {})


def decoded(heat_map, level):
    """What a browser makes of all tiles of a level."""
    rows, columns = heat_map.shapes[level]
    down, across = -(-rows // 256), -(-columns // 256)
    n = np.block(
        [
            [
                np.frombuffer(heat_tile(heat_map, level, x, y), "<i2").reshape(256, 256)
                for x in range(across)
            ]
            for y in range(down)
        ]
    )
    values = np.where(n == NOTHING, np.nan, step_of(heat_map) * n)
    return values[:rows, :columns], values[rows:], values[:, columns:]


def test_every_value_of_every_level_is_right_to_half_a_step(heat_map):
    for level, shape in enumerate(heat_map.shapes):
        values, below, beside = decoded(heat_map, level)
        stored = heat_map.stored.read(level, 0, 0, *shape).astype(np.float64)
        # By hand: sums are over a pixel's area at that level, means are of full pixels.
        expected = stored / AREA_MM2 / (4**level if heat_map.kind == "sum" else 1)
        np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
        # The quotient is rounded in float64 before it is rounded to a whole number.
        worst = np.nanmax(np.abs(values - expected))
        assert worst <= step_of(heat_map) * (0.5 + 1e-9)
        assert np.isnan(below).all()
        assert np.isnan(beside).all()


def test_the_largest_value_is_there_and_no_other_tile_has_another_step(heat_map):
    values, _, _ = decoded(heat_map, 0)
    assert values[7, 11] == pytest.approx(-23.0 / AREA_MM2, rel=1e-7)
    assert step_of(heat_map) == pytest.approx(23.0 / AREA_MM2 / 32767)
    assert np.nanmax(np.abs(values)) == pytest.approx(heat_map.range.largest)


def test_bytes_are_little_endian():
    assert whole_numbers(np.array([1.0, -2.0, np.nan]), 1.0).tobytes() == b"\1\0\xfe\xff\0\x80"


def test_infinities_travel_as_nothing():
    values = np.array([np.inf, -np.inf, 3.0])
    np.testing.assert_array_equal(whole_numbers(values, 1.0), [NOTHING, NOTHING, 3])


def test_nothing_is_cut_short():
    assert whole_numbers(np.array([32767.4, -32767.4]), 1.0).tolist() == [32767, -32767]
    with pytest.raises(ValueError, match="a value of 32768, but at most 32767"):
        whole_numbers(np.array([-32767.6]), 1.0)


def test_a_record_of_another_map_is_an_error_not_other_numbers(heat_map):
    record = {"ranges": {"heatmap": {"limit": 1.0, "largest": 1.0}}}
    stale = OneMap("heatmap", heat_map.stored, record)
    with pytest.raises(PathologyError, match="record is of another map"):
        heat_tile(stale, 0, 0, 0)


@pytest.mark.parametrize("place", [(-1, 0, 0), (2, 0, 0), (0, 3, 0), (0, 0, 3), (1, 2, 0)])
def test_squares_that_there_are_not(heat_map, place):
    with pytest.raises(UnknownIdError):
        heat_tile(heat_map, *place)


def test_a_map_of_zeros_travels_as_zeros(tmp_path):
    slide_map = SlideMap(np.zeros((3, 4), np.float32), Box(0, 0, 4, 3), Mpp(1, 1), "logit")
    stored = StoredMap(write_ome_tiff(slide_map, tmp_path / "map.ome.tif"))
    values, _, _ = decoded(OneMap("heatmap", stored, {}), 0)
    np.testing.assert_array_equal(values, 0.0)
