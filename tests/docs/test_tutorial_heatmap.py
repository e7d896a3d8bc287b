"""docs/tutorials/read_a_heatmap.md: all of it, on smaller slides and for one epoch."""

import re

import numpy as np
import pytest

from pathology.api import load_explanation
from tests.docs.pages import DOCS, run_page
from tests.docs.sketches import sketch_figures

PAGE = "tutorials/read_a_heatmap.md"
SMALL = {
    "train=2": "train=1",
    "size_px=(1536, 1536)": "size_px=(768, 768)",
    "--trainer.max_epochs 6": "--trainer.max_epochs 1",
    "--jitter 4 --null 5": "--jitter 2 --null 2",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        sketch_figures(patch)
        yield folder, run_page(PAGE, folder, patch, SMALL)


def test_a_map_keeps_its_sum_at_every_level(ran):
    folder, page = ran
    stored = load_explanation(folder / "explained/test_000/tumour")
    heat, coarser = page.names["heat"], page.names["coarser"]
    assert stored.ledger.is_closed
    assert heat.unit == "logit"
    assert coarser.values.shape == (24, 24)
    assert coarser.mpp.x * 24 == heat.mpp.x * heat.values.shape[1] == 384
    rounding = 1e-5 * float(np.nansum(np.abs(heat.values)))
    assert coarser.sum() == pytest.approx(stored.ledger.map_sum, abs=rounding)


def test_regions_and_glass_are_the_whole_map(ran):
    _, page = ran
    parts, heat = page.names["parts"], page.names["heat"]
    assert list(parts) == ["normal", "tumour", "glass"]
    assert sum(parts.values()) == pytest.approx(heat.sum(), abs=1e-9)
    assert min(map(abs, parts.values())) > 0


def test_orange_is_not_called(ran):
    _, page = ran
    tiles, stored = page.names["tiles"], page.names["tumour"]
    # A tile's logit is the bias and what it contributes, so a colour is no call.
    apart = tiles["logit_tumour"] - tiles["contribution"] - stored.ledger.bias
    assert apart.abs().max() < 1e-5 * max(1.0, tiles["contribution"].abs().max())
    assert stored.ledger.bias == pytest.approx(-3.0)
    assert not (page.names["called"] & ~page.names["orange"]).any()


def test_two_slides_are_drawn_on_one_scale(ran):
    folder, page = ran
    assert page.names["normal"].slide_id == "normal"
    for name in ("test_000", "normal"):
        assert (folder / f"{name}.png").stat().st_size > 10_000


def test_layers_are_there_and_are_told(ran):
    _, page = ran
    sure, told = page.names["sure"], page.names["told"]
    assert sure.ledger.is_closed
    assert {"layers/agreement", "layers/spread", "layers/null_p"} <= set(sure.maps)
    assert 0 <= told["share_where_all_agree"] <= 1
    assert (len(told["members"]), len(told["null"]["beyond_of_nulls"])) == (2, 2)
    assert told["null"]["p"] >= 1 / 3 - 1e-9


def test_contributions_sum_to_the_logit_and_removals_do_not(ran):
    _, page = ran
    cells, logit, tile = (page.names[name] for name in ("cells", "logit", "tile"))
    own, lost = np.array(cells).T
    assert len(cells) == 9
    assert own.sum() - 3.0 == pytest.approx(logit(tile), abs=1e-5 * max(1.0, np.abs(own).sum()))
    assert np.abs(own - lost).max() > 0.01 * np.abs(own).max() > 0


def test_numbers_that_are_shown_are_told_apart_from_code():
    text = (DOCS / PAGE).read_text()
    assert not re.search(r"[A-Z]+_OUTPUT", text)


def test_its_pictures_are_there():
    for name in re.findall(r"\]\((\.\./images/[^)]+)\)", (DOCS / PAGE).read_text()):
        assert 0 < (DOCS / "tutorials" / name).stat().st_size < 150_000, name
