"""The heatmaps page: its commands and its Python run as they stand, one after another."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

from pathology.cli import main
from pathology.cli.explain import explain
from pathology.maps.ome_tiff import read_ome_tiff
from pathology.slides import open_slide
from tests.cli.made_slides import write_slide
from tests.made_run import write_run

PAGE = Path(__file__).parents[2] / "docs" / "heatmaps.md"
README = PAGE.parents[1] / "README.md"
FILES = re.compile(r"^\| (`.*?`) \|", re.MULTILINE)


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which all of the page was done, and what its Python made."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_run(Path("runs/first"), size_px=224)
        write_slide(Path("slides/case_001.tif"), seed=1, mpp=0.5, side=672)
        [console] = blocks("console")
        for line in console.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "))
            assert program == "pathology"
            assert main(arguments) == 0
        names: dict[str, object] = {}
        for code in blocks("python"):
            exec(compile(code, str(PAGE), "exec"), names)
    return folder, names


def test_python_and_command_line_agree(ran):
    _, names = ran
    assert names["result"].ledger == names["stored"].ledger
    assert names["result"].settings == names["stored"].settings
    assert names["record"]["ledger"]["gap"] == names["stored"].ledger.gap


def test_the_folder_holds_what_the_page_lists(ran):
    folder, _ = ran
    table = PAGE.read_text().partition("## What is in a folder")[2].partition("## ")[0]
    listed = {name for row in FILES.findall(table) for name in re.findall(r"`([^`]+)`", row)}
    for target in ("tumour", "tumour_minus_normal"):
        made = {path.name for path in (folder / "explained" / "case_001" / target).iterdir()}
        assert made == listed


def test_figures_are_where_it_says(ran):
    folder, _ = ran
    for path in ("figure.pdf", "figure_1.pdf", "explained/case_001/comparison.pdf"):
        assert (folder / path).read_bytes().startswith(b"%PDF")
    assert (folder / "explained" / "by_hand" / "report.html").is_file()


def test_contributions_of_your_own_keep_their_sum(ran):
    folder, names = ran
    mine, grid = names["mine"], names["grid"]
    with open_slide(folder / "slides" / "case_001.tif") as slide:
        own = [slide.read(grid[i].box, mpp=2.0).mean(axis=2).sum() for i in range(len(grid))]
    given = sum(own) / len(grid)
    assert mine.map_sum + mine.rounding + mine.cut_off == pytest.approx(given, rel=1e-12)
    assert read_ome_tiff(folder / "mine.ome.tif")[0].sum() == pytest.approx(mine.map_sum, rel=1e-12)
    assert {path.name for path in (folder / "scratch").iterdir()} == {
        "sum.f32",
        "weight.f32",
        "density.f32",
    }


def test_options_it_names_exist():
    named = set(re.findall(r"--([a-z][a-z-]+)", PAGE.read_text().partition("| to | give |")[2]))
    assert {name.replace("-", "_") for name in named} <= set(inspect.signature(explain).parameters)


def test_the_readmes_slide_is_explained(ran, monkeypatch):
    folder, names = ran
    monkeypatch.chdir(folder)
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    found: dict[str, object] = {}
    exec(code, found)
    assert found["result"].ledger == names["result"].ledger
    assert (folder / "explained" / "from_python" / "report.html").is_file()
