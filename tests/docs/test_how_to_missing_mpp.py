"""The page on pixel sizes: the error it shows, and what each way of giving the number does."""

import re

import pytest
from PIL import Image

from pathology.cli import main
from pathology.errors import MissingResolutionError, StampMismatchError
from pathology.slides import open_slide
from pathology.tiling import TileGrid, TileSpec, tile_slide
from tests.cli.made_slides import write_slide
from tests.docs.pages import DOCS, run_page

PAGE = "how-to/missing_mpp.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        run_page(PAGE, folder, patch)
        yield folder


def test_the_error_is_as_shown(folder, capsys, tmp_path):
    shown = re.search(r"^pathology tile: .*$", (DOCS / PAGE).read_text(), re.MULTILINE)[0]
    assert main(["tile", "--slides", "slides/", "--out", str(tmp_path / "tiles")]) == 2
    assert capsys.readouterr().err.strip() == shown


def test_a_given_number_is_part_of_the_tiles(folder):
    grid = TileGrid.load(folder / "tiles" / "case_001.parquet")
    assert (tuple(grid.source.mpp), grid.source.mpp_source) == ((0.5, 0.5), "given")
    with (
        open_slide(folder / "slides" / "case_001.tif", mpp=0.25) as other,
        pytest.raises(StampMismatchError, match="mpp"),
    ):
        grid.check_slide(other)


def test_mpp_holds_for_slides_that_say_something_else(tmp_path, capsys):
    write_slide(tmp_path / "slides" / "says_two.tif", 1, mpp=2.0)
    out = str(tmp_path / "tiles")
    words = ["tile", "--slides", str(tmp_path / "slides"), "--out", out, "--mpp", "1"]
    assert main([*words, "--size-px", "32", "--tile-mpp", "2"]) == 0
    assert TileGrid.load(tmp_path / "tiles" / "says_two.parquet").source.mpp == (1, 1)


def test_a_number_that_is_72_dpi_is_passed_over(tmp_path):
    path = write_slide(tmp_path / "slide.tif", 1, mpp=352.8)
    with pytest.raises(MissingResolutionError, match=r"352\.8 x 352\.8; wanted 0\.05 to 10"):
        open_slide(path)


def test_a_wrong_factor_of_two_makes_a_quarter_as_many_tiles(folder):
    counts = []
    for mpp in (0.5, 0.25):
        with open_slide(folder / "slides" / "case_001.tif", mpp=mpp) as slide:
            grid = tile_slide(slide, TileSpec(size_px=64, mpp=1.0, min_tissue=0.0))
            counts.append((len(grid), grid.tile_size.width))
    assert counts == [(64, 128), (16, 256)]


def test_the_tiles_are_drawn(folder):
    with Image.open(folder / "case_001_tiles.png") as image:
        assert image.size == (8 * 64, 64)
