import math

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pathology.errors import OutputError
from pathology.explain.stitching.stitch import BATCH_VALUES, Stitcher
from pathology.geometry import Box, Mpp, Size
from pathology.maps.ome_tiff import write_ome_tiff


def reference(tiles, slide_size, slide_mpp, out_mpp):
    """Every cell against every pixel, by the definition; sum, weight and what fell outside."""
    pixel_w, pixel_h = out_mpp / slide_mpp.x, out_mpp / slide_mpp.y
    width, height = math.ceil(slide_size.width / pixel_w), math.ceil(slide_size.height / pixel_h)
    slide = Box(0, 0, *slide_size)
    total, weights, cut_off = np.zeros((height, width)), np.zeros((height, width)), 0.0
    for box, cells, weight in tiles:
        rows, columns = cells.shape
        cell_w, cell_h = box.width / columns, box.height / rows
        for v in range(rows):
            for u in range(columns):
                cell = Box(box.x + u * cell_w, box.y + v * cell_h, cell_w, cell_h)
                seen = cell.intersection(slide)
                mass = weight * cells[v, u]
                cut_off += mass * (1 - (seen.area / cell.area if seen else 0.0))
                for i in range(height):
                    for j in range(width):
                        pixel = Box(j * pixel_w, i * pixel_h, pixel_w, pixel_h)
                        shared = seen.intersection(pixel) if seen else None
                        if shared:
                            total[i, j] += mass * shared.area / cell.area
                            weights[i, j] += weight * shared.area / pixel.area
    return total, weights, cut_off


def stitch(tiles, slide_size, slide_mpp, out_mpp, folder, **options):
    largest = Size(max(t[0].width for t in tiles), max(t[0].height for t in tiles))
    stitcher = Stitcher(slide_size, slide_mpp, out_mpp, largest, folder, **options)
    for box, cells, weight in sorted(tiles, key=lambda tile: tile[0].y):
        stitcher.add(box, cells, weight)
    return stitcher.finish()


def random_tiles(rng, count, slide_size):
    """Tiles of different sizes and grids, over all four edges, one of them far outside."""
    tiles = []
    for _ in range(count):
        width, height = rng.uniform(5, 40, 2)
        x = rng.uniform(-width, slide_size.width)
        y = rng.uniform(-height, slide_size.height)
        cells = rng.standard_normal((rng.integers(1, 5), rng.integers(1, 5)))
        tiles.append((Box(x, y, width, height), cells, rng.uniform(0, 2)))
    tiles.append((Box(-90.0, -90.0, 30.0, 30.0), rng.standard_normal((2, 2)), 1.0))
    return tiles


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("out_mpp", [0.5, 1.7, 8.0])
def test_equals_the_definition(seed, out_mpp, tmp_path):
    rng = np.random.default_rng(seed)
    size, mpp = Size(40.5, 33.0), Mpp(0.2528, 0.31)
    tiles = random_tiles(rng, 6, size)
    total, weights, cut_off = reference(tiles, size, mpp, out_mpp)

    stitched = stitch(tiles, size, mpp, out_mpp, tmp_path, band=7)

    assert stitched.shape == total.shape
    assert stitched.cut_off == pytest.approx(cut_off, abs=1e-12)
    # The float32 on disk is the float64 sum rounded once, so what they differ by is reported.
    assert stitched.map_sum + stitched.rounding == pytest.approx(total.sum(), abs=1e-12)
    values = np.nan_to_num(stitched.additive.values)
    np.testing.assert_allclose(values, total, rtol=2**-23, atol=1e-12)
    np.testing.assert_allclose(stitched.coverage.values, weights, rtol=2**-23, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(stitched.additive.values), weights == 0)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mpp=st.tuples(st.floats(0.1, 2.0), st.floats(0.1, 2.0)),
    out_mpp=st.floats(0.3, 20.0),
    size=st.tuples(st.floats(1.0, 300.0), st.floats(1.0, 300.0)),
    band=st.integers(1, 80),
)
def test_every_bit_of_the_sum_is_accounted_for(seed, mpp, out_mpp, size, band, tmp_path_factory):
    tiles = random_tiles(np.random.default_rng(seed), 12, Size(*size))
    folder = tmp_path_factory.mktemp("stitch")

    stitched = stitch(tiles, Size(*size), Mpp(*mpp), out_mpp, folder, band=band)

    expected = sum(weight * cells.sum() for _, cells, weight in tiles)
    scale = sum(weight * np.abs(cells).sum() for _, cells, weight in tiles)
    accounted = stitched.map_sum + stitched.rounding + stitched.cut_off
    assert accounted == pytest.approx(expected, abs=1e-12 * scale)
    assert stitched.given == pytest.approx(expected, abs=1e-12 * scale)
    assert stitched.absolute_sum == pytest.approx(scale)
    assert stitched.additive.sum() == pytest.approx(stitched.map_sum, abs=1e-12 * scale)
    assert abs(stitched.rounding) < 1e-7 * scale


def test_streaming_equals_one_shot(tmp_path):
    rng, size = np.random.default_rng(0), Size(200.0, 500.0)
    tiles = random_tiles(rng, 60, size)

    one = stitch(tiles, size, Mpp(0.25, 0.25), 0.5, tmp_path / "one", band=1000)
    many = stitch(tiles, size, Mpp(0.25, 0.25), 0.5, tmp_path / "many", band=1)

    np.testing.assert_array_equal(one.additive.values, many.additive.values)
    np.testing.assert_array_equal(one.coverage.values, many.coverage.values)


def test_a_long_row_placed_in_batches_is_the_same(tmp_path, monkeypatch):
    size = Size(300.0, 40.0)
    cells = np.random.default_rng(0).standard_normal((30, 7, 7))
    tiles = [(Box(9.3 * i, 2.0, 20.0, 20.0), cells[i], 1.0) for i in range(30)]
    whole = stitch(tiles, size, Mpp(1, 1), 3.1, tmp_path / "whole")
    monkeypatch.setattr("pathology.explain.stitching.stitch.BATCH_VALUES", 100)
    parts = stitch(tiles, size, Mpp(1, 1), 3.1, tmp_path / "parts")
    np.testing.assert_allclose(parts.additive.values, whole.additive.values, rtol=1e-6)


def test_a_row_of_whole_tiles_on_a_fine_map_piles_up_no_pixels(tmp_path, monkeypatch):
    """A tile of one cell touches many pixels, and those take the memory."""
    most, place = 0, Stitcher._place_row

    def watched(self, key, row):
        nonlocal most
        most = max(most, len(row))
        place(self, key, row)

    monkeypatch.setattr(Stitcher, "_place_row", watched)
    stitcher = Stitcher(Size(3000.0, 200.0), Mpp(1, 1), 1.0, Size(200.0, 200.0), tmp_path)
    for x in range(0, 2801, 20):
        stitcher.add(Box(x, 0, 200, 200), np.ones((1, 1)))
    assert stitcher.finish().map_sum == pytest.approx(141, rel=1e-7)
    assert most * 200 * 200 < 1.2 * BATCH_VALUES


def test_an_earlier_map_that_is_open_stays_readable(tmp_path):
    def made(value):
        stitcher = Stitcher(Size(9.0, 9.0), Mpp(1, 1), 1.0, Size(9.0, 9.0), tmp_path)
        stitcher.add(Box(0, 0, 9, 9), np.full((9, 9), value))
        return stitcher.finish().additive.values

    first, second = made(1.0), made(2.0)
    assert (first.sum(), second.sum()) == (81.0, 162.0)


def test_a_dot_lands_within_half_an_output_pixel(tmp_path):
    """At 0.2528 -> 0.5 mpp, far from the origin, where rounded tile sizes drift by many pixels."""
    mpp, size, side = Mpp(0.2528, 0.2528), Size(60_011.0, 1_207.0), 224 * 0.5 / 0.2528
    stitcher = Stitcher(size, mpp, 0.5, Size(side, side), tmp_path)
    cells = np.zeros((224, 224))
    cells[100, 37] = 1.0
    # Tile 130 to the right and 1 down of a grid without overlap.
    box = Box(130 * side, side, side, side)
    stitcher.add(box, cells)
    additive = stitcher.finish().additive

    row, column = np.unravel_index(np.nanargmax(additive.values), additive.values.shape)
    down_x, down_y = additive.downsample
    dot_x, dot_y = box.x + 37.5 * side / 224, box.y + 100.5 * side / 224
    assert abs((column + 0.5) * down_x - dot_x) <= 0.5 * down_x
    assert abs((row + 0.5) * down_y - dot_y) <= 0.5 * down_y
    assert additive.mpp == pytest.approx((0.5, 0.5))


def test_the_last_pixel_is_whole_and_shows_only_the_slide(tmp_path):
    stitcher = Stitcher(Size(10.0, 4.0), Mpp(1, 1), 4.0, Size(12.0, 4.0), tmp_path)
    stitcher.add(Box(0.0, 0.0, 12.0, 4.0), np.full((1, 12), 1.0))
    stitched = stitcher.finish()
    np.testing.assert_array_equal(stitched.additive.values, [[4, 4, 2]])
    np.testing.assert_array_equal(stitched.coverage.values, [[1, 1, 0.5]])
    assert stitched.box == Box(0, 0, 12, 4)
    assert stitched.cut_off == 2.0


def test_density_is_the_weighted_mean_of_the_tiles(tmp_path):
    # Two tiles of 4 x 4 px at 1 mpp, 16 um2 each, over the same 2 x 2 pixels.
    tiles = [
        (Box(0.0, 0.0, 4.0, 4.0), np.full((1, 1), 16e-6), 3.0),
        (Box(0.0, 0.0, 4.0, 4.0), np.full((1, 1), 48e-6), 1.0),
    ]
    stitched = stitch(tiles, Size(6.0, 4.0), Mpp(1, 1), 2.0, tmp_path)
    density = stitched.density()
    # 1 and 3 logits per mm2, weighted 3 to 1.
    np.testing.assert_allclose(density.values, [[1.5, 1.5, np.nan]] * 2, rtol=1e-6)
    assert density.unit == "logit/mm2"
    assert stitched.density().values[0, 0] == density.values[0, 0]


def test_rounding_errors_in_positions_cover_no_neighbour(tmp_path):
    third = 10.0 / 3.0
    stitcher = Stitcher(Size(100.0, 10.0), Mpp(1, 1), third, Size(third, third), tmp_path)
    stitcher.add(Box(0.1 * 3 * third / 0.3, 0.0, third, third), np.ones((1, 1)))
    values = stitcher.finish().additive.values
    assert np.isfinite(values).sum() == 1


def test_float32_rounding_is_reported(tmp_path):
    stitcher = Stitcher(Size(1.0, 1.0), Mpp(1, 1), 1.0, Size(1.0, 1.0), tmp_path)
    stitcher.add(Box(0.0, 0.0, 1.0, 1.0), np.array([[0.1]]))
    stitched = stitcher.finish()
    assert stitched.map_sum == float(np.float32(0.1))
    assert stitched.rounding == 0.1 - float(np.float32(0.1))


def test_tiles_above_written_rows_are_refused(tmp_path):
    stitcher = Stitcher(Size(10.0, 100.0), Mpp(1, 1), 1.0, Size(5.0, 5.0), tmp_path, band=4)
    stitcher.add(Box(0.0, 50.0, 5.0, 5.0), np.ones((1, 1)))
    # Out of order, but its rows are still held.
    stitcher.add(Box(0.0, 48.0, 5.0, 5.0), np.ones((1, 1)))
    with pytest.raises(ValueError, match="in order of y, or collect them in a Spool"):
        stitcher.add(Box(0.0, 10.0, 5.0, 5.0), np.ones((1, 1)))


@pytest.mark.parametrize(
    ("box", "cells", "weight", "message"),
    [
        (Box(0, 0, 6, 5), np.ones((1, 1)), 1.0, "larger than"),
        (Box(0, 0, 5, 5), np.ones(3), 1.0, "got shape"),
        (Box(0, 0, 5, 5), np.ones((1, 1)), -1.0, "at least 0"),
        (Box(0, 0, 5, 5), np.ones((1, 1)), math.nan, "at least 0"),
    ],
)
def test_bad_tiles_are_refused(box, cells, weight, message, tmp_path):
    stitcher = Stitcher(Size(10.0, 10.0), Mpp(1, 1), 1.0, Size(5.0, 5.0), tmp_path)
    with pytest.raises(ValueError, match=message):
        stitcher.add(box, cells, weight)


def test_contributions_that_are_not_finite_are_refused_with_their_tile(tmp_path):
    stitcher = Stitcher(Size(10.0, 10.0), Mpp(1, 1), 1.0, Size(5.0, 5.0), tmp_path)
    stitcher.add(Box(0, 0, 5, 5), np.ones((1, 1)))
    stitcher.add(Box(3, 0, 5, 5), np.full((1, 1), math.nan))
    with pytest.raises(ValueError, match=r"\(3.0, 0\) are not finite"):
        stitcher.finish()


def test_a_finished_stitch_takes_nothing_more(tmp_path):
    stitcher = Stitcher(Size(10.0, 10.0), Mpp(1, 1), 1.0, Size(5.0, 5.0), tmp_path)
    stitched = stitcher.finish()
    assert (stitched.tiles, stitched.map_sum, stitched.cut_off) == (0, 0.0, 0.0)
    assert np.isnan(stitched.additive.values).all()
    with pytest.raises(ValueError, match="finished"):
        stitcher.add(Box(0, 0, 5, 5), np.ones((1, 1)))
    with pytest.raises(ValueError, match="finished"):
        stitcher.finish()


def test_bad_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="positive"):
        Stitcher(Size(10.0, 10.0), Mpp(1, 1), 0.0, Size(5.0, 5.0), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the stitched map") as caught:
        Stitcher(Size(10, 10), Mpp(1, 1), 1.0, Size(5, 5), tmp_path / "file" / "scratch")
    assert "\n" not in str(caught.value)


def random_windows(rng, count, slide_size):
    """Tiles of :func:`random_tiles`, each with none to three covers inside it."""
    windows = []
    for box, cells, weight in random_tiles(rng, count, slide_size):
        covers = []
        for _ in range(rng.integers(0, 4)):
            (x, right), (y, bottom) = np.sort(rng.random((2, 2)))
            width, height = (right - x) * box.width, (bottom - y) * box.height
            place = Box(box.x + x * box.width, box.y + y * box.height, width, height)
            covers.append((place, rng.uniform(0, 2)))
        windows.append((box, cells, weight, covers))
    return windows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("band", [1, 7])
def test_windows_place_everything_and_cover_what_they_are_told(seed, band, tmp_path):
    rng = np.random.default_rng(seed)
    size, mpp, out_mpp = Size(40.5, 33.0), Mpp(0.2528, 0.31), 0.5
    windows = random_windows(rng, 5, size)
    lone = [(Box(1.0, 20.0, 9.0, 9.0), rng.standard_normal((2, 2)), 0.7)]
    placed = [window[:3] for window in windows] + lone
    total, under, cut_off = reference(placed, size, mpp, out_mpp)
    covers = [
        (place, np.zeros((1, 1)), weight) for *_, covers in windows for place, weight in covers
    ]
    _, weights, _ = reference(covers + lone, size, mpp, out_mpp)

    largest = Size(*(max(getattr(t[0], side) for t in placed) for side in ("width", "height")))
    stitcher = Stitcher(size, mpp, out_mpp, largest, tmp_path, band=band)
    for box, cells, weight, *told in sorted(windows + lone, key=lambda window: window[0].y):
        stitcher.add(box, cells, weight, *told)
    stitched = stitcher.finish()

    additive, coverage = stitched.additive.values, stitched.coverage.values
    np.testing.assert_allclose(np.nan_to_num(additive), total, rtol=2**-23, atol=1e-12)
    np.testing.assert_allclose(coverage, weights, rtol=2**-23, atol=1e-12)
    # A pixel without cover keeps what was placed there; its mean over tiles is of none.
    np.testing.assert_array_equal(np.isnan(additive), under + weights == 0)
    np.testing.assert_array_equal(np.isnan(stitched.density().values), weights == 0)
    assert ((weights == 0) & (under > 0)).any()
    assert stitched.cut_off == pytest.approx(cut_off, abs=1e-12)
    given = sum(weight * cells.sum() for _, cells, weight in placed)
    accounted = stitched.map_sum + stitched.rounding + stitched.cut_off
    assert accounted == pytest.approx(given, abs=1e-12)


def test_a_window_that_covers_itself_is_a_tile(tmp_path):
    rng = np.random.default_rng(5)
    size = Size(300.0, 200.0)
    tiles = random_tiles(rng, 20, size)
    plain = stitch(tiles, size, Mpp(0.5, 0.5), 1.7, tmp_path / "plain")
    largest = Size(40.0, 40.0)
    stitcher = Stitcher(size, Mpp(0.5, 0.5), 1.7, largest, tmp_path / "told")
    for box, cells, weight in sorted(tiles, key=lambda tile: tile[0].y):
        stitcher.add(box, cells, weight, covers=[(box, weight)])
    told = stitcher.finish()
    # The axis' reach depends on the announced size, and with it the order of a few additions.
    np.testing.assert_allclose(told.additive.values, plain.additive.values, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(told.coverage.values, plain.coverage.values, rtol=1e-6)


def test_a_window_of_weight_zero_places_nothing(tmp_path):
    stitcher = Stitcher(Size(10.0, 10.0), Mpp(1, 1), 1.0, Size(5.0, 5.0), tmp_path)
    stitcher.add(Box(0, 0, 5, 5), np.ones((1, 1)), 0.0, covers=[])
    assert np.isnan(stitcher.finish().additive.values).all()


@pytest.mark.parametrize(
    ("cover", "weight", "message"),
    [
        (Box(3, 0, 3, 5), 1.0, "not inside the window"),
        (Box(0, -1, 2, 3), 1.0, "not inside the window"),
        (Box(0, 0, 2, 2), -1.0, "at least 0"),
        (Box(0, 0, 2, 2), math.inf, "at least 0"),
    ],
)
def test_bad_covers_are_refused(cover, weight, message, tmp_path):
    stitcher = Stitcher(Size(10.0, 10.0), Mpp(1, 1), 1.0, Size(5.0, 5.0), tmp_path)
    with pytest.raises(ValueError, match=message):
        stitcher.add(Box(0, 0, 5, 5), np.ones((1, 1)), covers=[(cover, weight)])


def test_the_sum_holds_through_every_level_of_the_file(tmp_path):
    """As tifffile reads them back; the file's float32 is all that is lost, and little of it."""
    rng, size = np.random.default_rng(7), Size(2600.0, 1900.0)
    tiles = [
        (Box(*rng.uniform(-30, 1880, 2), 90.0, 90.0), rng.standard_normal((6, 6)), 0.01)
        for _ in range(400)
    ]
    stitched = stitch(tiles, size, Mpp(0.5, 0.5), 2.7, tmp_path)
    path = write_ome_tiff(stitched.additive, tmp_path / "map.ome.tif", tile_px=32)
    given = math.fsum(weight * value for _, cells, weight in tiles for value in cells.flat)
    with tifffile.TiffFile(path) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert len(levels) == 5
    assert {level.dtype for level in levels} == {np.dtype(np.float32)}
    # The finest level is what was stitched, bit for bit, so its sum is the ledger's.
    stored = [math.fsum(level[np.isfinite(level)].astype(np.float64).flat) for level in levels]
    assert stored[0] == pytest.approx(stitched.map_sum, abs=1e-15 * stitched.absolute_sum)
    for level, total in zip(levels, stored, strict=True):
        # A pixel is rounded once, by at most half a unit in its last place: 2**-24 of itself.
        rounding = 2.0**-24 * float(np.nansum(np.abs(level), dtype=np.float64))
        assert abs(total - stitched.map_sum) <= rounding
        assert abs(total + stitched.rounding + stitched.cut_off - given) <= rounding
