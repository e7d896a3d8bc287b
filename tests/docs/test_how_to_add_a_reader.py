"""The page on readers: what it converts and what it reads are the pixels that were there."""

import sys

import numpy as np
import pytest

from pathology.errors import SlideOpenError
from pathology.geometry import Box
from pathology.slides import open_slide
from pathology.tiling import TileGrid
from tests.docs.pages import run_page


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.delitem(sys.modules, "my_slides", raising=False)
        yield folder, run_page("how-to/add_a_reader.md", folder, patch).names


def test_the_converted_file_holds_every_pixel_and_its_size(ran):
    folder, _ = ran
    pixels = np.load(folder / "case_001.npy")
    with open_slide(folder / "case_001.tif") as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert [level.downsample for level in slide.levels] == [1, 4, 16]
        whole = Box(0, 0, 1024, 1024)
        np.testing.assert_array_equal(slide.read(whole, slide.mpp.x), pixels)


def test_tiles_of_both_ways_are_the_same(ran):
    folder, _ = ran
    grids = [TileGrid.load(folder / "tiles" / f"{name}.parquet")
             for name in ("case_001", "from_python")]  # fmt: skip
    assert len(grids[0]) > 10
    np.testing.assert_array_equal(grids[0].boxes(), grids[1].boxes())


def test_damage_and_absence_are_our_error(ran):
    folder, names = ran
    (folder / "broken.npy").write_bytes((folder / "case_001.npy").read_bytes()[:5000])
    (folder / "broken.json").write_text('{"mpp": 0.5}')
    for path in ("broken.npy", "absent.npy"):
        with pytest.raises(SlideOpenError, match="cannot be opened"):
            names["ArraySlide"](folder / path)
