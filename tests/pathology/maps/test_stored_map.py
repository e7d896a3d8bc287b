from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from pathology.errors import PathologyError
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import read_ome_tiff, write_ome_tiff
from pathology.maps.pyramid import Level
from pathology.maps.slide_map import SlideMap
from pathology.maps.stored_map import StoredMap
from pathology.maps.value_range import value_range
from pathology.slides.tile_cache import DECODED


@pytest.fixture(scope="module")
def slide_map():
    """Odd sides on every level, a third of it uncovered; pixels that are not square."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((211, 333)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    return SlideMap(values, Box(7.0, 3.0, 333 * 31.6, 211 * 20.0), Mpp(0.25, 0.4), "logit")


@pytest.fixture(params=["sum", "mean"])
def path(slide_map, request, tmp_path):
    return write_ome_tiff(slide_map, tmp_path / "map.ome.tif", request.param, tile_px=32)


def test_it_says_what_the_file_says(path, slide_map):
    stored = StoredMap(path)
    assert (stored.box, stored.slide_mpp, stored.unit) == (
        slide_map.box,
        slide_map.slide_mpp,
        "logit",
    )
    assert stored.shapes == [(211, 333), (106, 167), (53, 84), (27, 42), (14, 21)]
    assert stored.pixel_mpp() == pytest.approx(slide_map.mpp)
    for level in range(5):
        assert stored.pixel_mpp(level) == pytest.approx(read_ome_tiff(path, level)[0].mpp)


def test_kind_of_levels_is_told(slide_map, tmp_path):
    for kind in ("sum", "mean"):
        assert StoredMap(write_ome_tiff(slide_map, tmp_path / f"{kind}.tif", kind)).kind == kind


def test_windows_are_those_of_the_level_read_whole(path):
    stored, rng = StoredMap(path), np.random.default_rng(1)
    for level, (rows, columns) in enumerate(stored.shapes):
        whole = np.pad(read_ome_tiff(path, level)[0].values, 90, constant_values=np.nan)
        for _ in range(40):
            top, left = rng.integers(-90, rows + 40), rng.integers(-90, columns + 40)
            height, width = rng.integers(1, 50, 2)
            window = stored.read(level, int(top), int(left), int(height), int(width))
            assert window.dtype == np.float32
            expected = whole[top + 90 :, left + 90 :][:height, :width]
            np.testing.assert_array_equal(window, expected)


def test_a_window_decodes_only_the_tiles_under_it_and_once(path, monkeypatch):
    stored, decoded = StoredMap(path), []
    DECODED.clear()
    real = StoredMap._decoded

    def noted(self, level, index):
        decoded.append((level, index))
        return real(self, level, index)

    monkeypatch.setattr(StoredMap, "_decoded", noted)
    for _ in range(2):
        stored.read(0, 40, 30, 20, 40)  # rows 40 to 59, columns 30 to 69: one by three tiles
    assert decoded == [(0, 11), (0, 12), (0, 13)]


def test_windows_belong_to_the_caller(path):
    stored = StoredMap(path)
    first = stored.read(0, 0, 0, 32, 32)
    first[:] = 5.0
    assert not np.array_equal(first, stored.read(0, 0, 0, 32, 32))


def test_blocks_are_the_level_and_its_range_is_that_of_the_map(path, slide_map, monkeypatch):
    stored = StoredMap(path)
    whole = np.zeros((211, 333), np.float32)
    for top, left, values in stored.blocks():
        whole[top : top + len(values), left : left + values.shape[1]] = values
    np.testing.assert_array_equal(whole, slide_map.values)
    monkeypatch.setattr("pathology.maps.value_range.SAMPLED", 2000)  # every fifth pixel
    assert stored.value_range() == value_range(Level(slide_map.values, None, "sum"))


def test_threads_read_what_one_reads(path):
    stored = StoredMap(path)
    places = [(level, 13 * i, 17 * i) for i in range(15) for level in (0, 1)]
    alone = [stored.read(*place, 70, 70) for place in places]
    DECODED.clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda place: stored.read(*place, 70, 70), places * 4))
    for expected, window in zip(alone * 4, together, strict=True):
        np.testing.assert_array_equal(window, expected)


def test_a_map_of_the_same_name_is_not_taken_for_the_former(slide_map, path):
    before = StoredMap(path)
    before.read(0, 0, 0, 32, 32)
    doubled = SlideMap(slide_map.values * 2, slide_map.box, slide_map.slide_mpp, "logit")
    write_ome_tiff(doubled, path, before.kind, tile_px=32)
    after = StoredMap(path)
    np.testing.assert_array_equal(after.read(0, 0, 0, 211, 333), doubled.values)
    # What was open stays what it was: the file that it holds is still there.
    np.testing.assert_array_equal(before.read(0, 0, 0, 211, 333), slide_map.values)


def test_arguments_are_refused_in_words(path):
    stored = StoredMap(path)
    with pytest.raises(ValueError, match="levels 0 to 4, got 5"):
        stored.read(5, 0, 0, 1, 1)
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        stored.read(0, 0, 0, 0, 3)


def test_other_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"no TIFF")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((64, 64), np.float32), tile=(16, 16))
    for name, words in (("a.tif", "cannot read it as an OME-TIFF"), ("b.tif", "slide map entry")):
        with pytest.raises(PathologyError, match=words) as caught:
            StoredMap(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(PathologyError, match="cannot read it"):
        StoredMap(tmp_path / "absent.tif")


def test_every_truncation_is_an_error_when_opened(path):
    data = path.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(PathologyError):
            StoredMap(path)


def test_damaged_tiles_are_one_clear_error_and_others_stay_readable(path):
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start, count = page.dataoffsets[5], page.databytecounts[5]
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    stored = StoredMap(path)
    with pytest.raises(PathologyError, match="tile 5 of level 0 cannot be read") as caught:
        stored.read(0, 0, 160, 10, 10)
    assert "\n" not in str(caught.value)
    stored.read(0, 0, 0, 10, 10)


def test_a_single_wrong_byte_in_a_tile_is_found(path):
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start, count = page.dataoffsets[5], page.databytecounts[5]
    data = bytearray(path.read_bytes())
    data[start + count // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(PathologyError, match="tile 5"):
        StoredMap(path).read(0, 0, 160, 10, 10)
