"""The page on QuPath and napari: what is read is where and what the explanation says.

napari is not installed; what the page hands to it is recorded by a stand-in.
"""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pathology.explain.results.stored import load_explanation
from tests.docs.pages import DOCS, fences, run_page

PAGE = "how-to/qupath_and_napari.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        yield folder, run_page(PAGE, folder, patch).names


@pytest.fixture
def layers(ran, monkeypatch):
    """What the page would show, by name or kind."""
    found = {}
    viewer = SimpleNamespace(
        add_image=lambda data, **options: found.update({options["name"]: (data, options)}),
        add_shapes=lambda data, **options: found.update(shapes=(data, options)),
    )
    napari, utils = ModuleType("napari"), ModuleType("napari.utils")
    napari.Viewer, napari.run = lambda: viewer, lambda: None
    utils.Colormap = lambda colours, name: (np.asarray(colours), name)
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.setitem(sys.modules, "napari.utils", utils)
    [code] = [
        content for language, content in fences((DOCS / PAGE).read_text()) if language == "py"
    ]
    exec(code, dict(ran[1]))
    return found


def edges(data, options):
    """First and last edge of rows and columns, in micrometres, as napari places pixels' centres."""
    scale, first = (
        np.array(options["scale"]),
        np.array(options["translate"]) - np.array(options["scale"]) / 2,
    )
    return first, first + scale * np.shape(data)[:2]


def test_the_files_that_it_names_are_there(ran):
    folder, _ = ran
    made = {path.name for path in (folder / "explained" / "test_000" / "tumour").iterdir()}
    assert {"heatmap.groovy", "tiles.geojson.gz", "heatmap.ome.tif", "density.ome.tif"} <= made
    script = (folder / "explained/test_000/tumour/heatmap.groovy").read_text()
    assert "final double LIMIT" in script


def test_slide_and_map_lie_on_each_other(layers):
    slide_first, slide_last = edges(*layers["slide"])
    heat_first, heat_last = edges(*layers["tumour"])
    np.testing.assert_allclose(slide_first, 0, atol=1e-9)
    np.testing.assert_allclose(slide_last, 512)
    np.testing.assert_allclose(heat_first, 0, atol=1e-9)
    assert (heat_last >= slide_last - 1e-9).all()  # whole pixels of 8 um
    assert (heat_last < slide_last + 8).all()


def test_values_are_the_explanations_and_colours_symmetric(ran, layers):
    folder, _ = ran
    stored = load_explanation(folder / "explained" / "test_000" / "tumour")
    data, options = layers["tumour"]
    np.testing.assert_array_equal(data, stored.map("density").values)
    low, high = options["contrast_limits"]
    assert low == -high < 0
    colours, _ = options["colormap"]
    assert colours.shape == (511, 3)
    assert colours.max() <= 1
    np.testing.assert_array_equal(colours[255], colours[255][0])  # white, or grey: no colour


def test_outlines_are_tiles_in_rows_and_columns(layers):
    outlines, _ = layers["shapes"]
    assert len(outlines) == 9
    for corners in outlines:
        assert corners.shape == (4, 2)
        np.testing.assert_allclose(np.ptp(corners, axis=0), 64)
        assert (corners >= 0).all()
        assert (corners <= 512).all()
