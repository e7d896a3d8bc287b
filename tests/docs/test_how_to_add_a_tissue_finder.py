"""The page on tissue finders: tables by a rule of one's own are taken by the verbs."""

import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.slides import open_slide
from pathology.tiling import TileGrid, TileSpec, tile_slide
from pathology.tissue import survey
from tests.docs.pages import run_page


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.delitem(sys.modules, "my_tissue", raising=False)
        yield folder, run_page("how-to/add_a_tissue_finder.md", folder, patch).names


def test_its_tables_say_that_the_tissue_was_given_and_have_features(ran):
    folder, _ = ran
    for slide_id in pd.read_csv(folder / "slides" / "slides.csv")["slide_id"]:
        grid = TileGrid.load(folder / "tiles" / f"{slide_id}.parquet")
        assert (grid.spec.tissue, grid.spec.exclude) == ("given", ())
        with h5py.File(folder / "features" / f"{slide_id}.h5") as file:
            assert len(file["features"]) == len(grid) > 10


def test_the_rule_finds_tissue_where_it_is(ran):
    folder, names = ran
    import tifffile

    truth = tifffile.imread(folder / "slides" / "test_000_regions.tif", level=0) > 0
    with open_slide(folder / "slides" / "test_000.tif") as slide:
        found = survey(slide, names["DarkTissue"](), exclude=()).tissue
    rows, columns = found.values.shape
    coarse = np.asarray(Image.fromarray(truth).resize((columns, rows), Image.Resampling.NEAREST))
    assert (found.values > 0.5)[coarse].mean() > 0.9


def test_a_mask_from_elsewhere_decides_which_tiles_are_cut(ran):
    folder, names = ran
    mask = np.zeros((128, 128), np.uint8)
    mask[:64] = 255  # the upper half
    with open_slide(folder / "slides" / "test_000.tif") as slide:
        found = survey(slide, names["FromMask"](mask), exclude=())
        grid = tile_slide(slide, TileSpec(size_px=64, mpp=1.0), found.tissue)
    assert len(grid) == 8 * 4
    assert grid.boxes()[:, 1].max() + 128 <= 512


def test_the_picture_is_written(ran):
    folder, _ = ran
    with Image.open(folder / "test_000.png") as image:
        assert image.width >= 1000
