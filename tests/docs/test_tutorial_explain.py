"""docs/tutorials/explain_a_slide.md: all of it, on smaller slides and for one epoch."""

import re

import numpy as np
import pytest

from pathology.api import load_explanation
from pathology.viewer.library.library import Library
from tests.docs.pages import DOCS, run_page
from tests.docs.sketches import sketch_figures

PAGE = "tutorials/explain_a_slide.md"
SMALL = {
    "train=2": "train=1",
    "size_px=(1536, 1536)": "size_px=(768, 768)",
    "--trainer.max_epochs 6": "--trainer.max_epochs 1",
}
TARGETS = ("tumour", "normal", "tumour_minus_normal")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        sketch_figures(patch)
        yield folder, run_page(PAGE, folder, patch, SMALL)


def test_every_ledger_closes(ran):
    folder, _ = ran
    places = [f"explained/test_000/{target}" for target in TARGETS]
    places += ["coarse/test_000/tumour", "strong/test_000/tumour", "explained/from_python"]
    for place in places:
        assert load_explanation(folder / place).ledger.is_closed, place


def test_it_prints_the_lines_that_are_shown_and_told(ran):
    _, page = ran
    text = (DOCS / PAGE).read_text()
    printed = page.output_of("pathology explain")
    names = re.findall(r"^ +([a-z= ]+?)  +[+-]?\d", printed, re.MULTILINE)
    assert names == ["bias", "map", "cut off", "= total", "score", "gap"]
    shown = text.partition("## 4. Explain")[2].partition("## 5.")[0]
    told = text.partition("## 5.")[2].partition("## 6.")[0]
    for name in names:
        assert re.search(rf"^ +{name}  ", shown, re.MULTILINE), name
        assert f"| `{name}` |" in told, name


def test_the_folder_holds_what_is_named(ran):
    folder, _ = ran
    table = (DOCS / PAGE).read_text().partition("## 6.")[2].partition("## 7.")[0]
    named = set(re.findall(r"`([a-z]+\.[a-z.]+)`", table))
    assert len(named) == 10
    assert named <= {path.name for path in (folder / "explained/test_000/tumour").iterdir()}
    assert (folder / "tiles" / "quality.html").is_file()
    assert (folder / "explained" / "test_000" / "comparison.pdf").is_file()


def test_a_difference_is_the_difference_of_the_maps(ran):
    folder, page = ran
    size = np.nanmax(np.abs(load_explanation(folder / "explained/test_000/normal").map().values))
    assert size > 0
    assert page.names["largest"] < 1e-5 * size


def test_coarser_and_quicker_maps_give_each_tile_the_same(ran):
    _, page = ran
    fine, coarse, strong = (page.names[name] for name in ("tumour", "coarse", "strong"))
    assert (fine.record["places"], coarse.record["places"]) == ([96, 96], [6, 6])
    assert 0 < strong.ledger.undivided.tiles < len(strong.tiles)
    # After one epoch evidence is small, and equal is what is closer than tiles are.
    own = fine.tiles["contribution"]
    assert own.std() > 0
    for each in (coarse, strong):
        assert (each.tiles["contribution"] - own).abs().max() < 0.1 * own.std()


def test_python_says_what_the_command_line_said(ran):
    folder, page = ran
    assert page.names["result"].ledger == page.names["tumour"].ledger
    assert page.names["result"].settings == page.names["tumour"].settings
    assert (folder / "figure.png").stat().st_size > 10_000


def test_the_viewer_finds_it_all(ran):
    folder, page = ran
    [words] = page.servers
    assert (
        " ".join(words) == "view --slides slides/slides.csv --results explained/ --run runs/small"
    )
    library = Library.find(folder / "slides" / "slides.csv", [folder / "explained"])
    assert {entry.folder.name for entry in library.evidence} >= set(TARGETS)
    library.close()


def test_its_pictures_are_there():
    for name in re.findall(r"\]\((\.\./images/[^)]+)\)", (DOCS / PAGE).read_text()):
        assert 0 < (DOCS / "tutorials" / name).stat().st_size < 150_000, name
