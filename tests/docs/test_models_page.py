"""The page of models is what its script would write, and its Python runs.

GFLOPs are counted again for the first model of each table only, since all of them take half a
minute. Costs are those of the stored file: nothing is timed here.
"""

import re

import pytest
from PIL import Image

from bcos_vit.models import list_models
from bcos_vit.models.bcos_v2 import ENTRY_POINTS
from bcos_vit.models.weights import PUBLISHED, TERMS
from scripts import model_table

TEXT = model_table.PAGE.read_text()
MODEL = "bcos_vit_tiny_patch16_224"


@pytest.fixture
def run(monkeypatch):
    """Run a script as from the command line."""

    def run(script, *arguments):
        monkeypatch.setattr("sys.argv", ["script", *arguments])
        script.main()

    return run


def test_the_page_is_current(run):
    run(model_table, "--check")


def test_a_page_that_is_not_current_says_where(run, monkeypatch, tmp_path, capsys):
    page = tmp_path / "models.md"
    page.write_text(TEXT.replace("## The", "## Some", 1))
    monkeypatch.setattr(model_table, "PAGE", page)
    monkeypatch.setattr(model_table, "FAMILIES", model_table.FAMILIES[-2:-1])
    monkeypatch.setattr(model_table, "list_models", lambda: ["bcos_inception_v3"])
    with pytest.raises(SystemExit, match="2"):
        run(model_table, "--check")
    assert "has '## Some 50 models' where there should be '## The 1 models'" in (
        capsys.readouterr().err
    )
    run(model_table)
    run(model_table, "--check")


def test_it_has_a_row_for_every_model_and_for_all_weights():
    rows = re.findall(r"^\| `(\S+?)` \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert set(list_models()) <= set(dict(rows))
    for weights in PUBLISHED:
        cells = dict(rows).get(weights.name) or dict(rows)[weights.model]
        assert re.search(rf"\b{weights.top1:.3f}( \([\d.]+\))? `{weights.tag}`", cells), (
            weights.name
        )


def test_a_model_without_a_table_is_refused(monkeypatch):
    monkeypatch.setattr(model_table, "list_models", lambda: ["bcos_new1"])
    with pytest.raises(ValueError, match="no table is for bcos_new1"):
        model_table.tables({}, {})


def test_it_says_what_the_licence_does_not():
    assert TERMS in " ".join(TEXT.split())


def test_its_python_runs(tmp_path, monkeypatch):
    Image.new("RGB", (64, 48), (180, 90, 150)).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        # Files of weights are not at hand.
        if entry := re.search(r"from_bcos_v2\(\"(.+?)\"", code):
            assert entry[1] in ENTRY_POINTS
        else:
            exec(code.replace("pretrained=True", "pretrained=False"), names)
    assert names["explanation"].weights.shape == (6, 224, 224)
    assert names["stains"]["eosin"].shape == (48, 64)
    assert names["model"].stage == (2.0, 0.0)


def test_costs_are_those_of_each_models_own_size(monkeypatch, tmp_path):
    costs = model_table.read_costs()
    assert set(costs["bcos_resnet18"]) >= set(model_table.COLUMNS)
    assert all(
        re.match(r"[\d.]+( \[|$)", cell) for cell in model_table.cost(costs["bcos_resnet18"])
    )
    other = tmp_path / "speed.csv"
    other.write_text(model_table.COSTS.read_text().replace(",224,", ",64,"))
    monkeypatch.setattr(model_table, "COSTS", other)
    with pytest.raises(ValueError, match=r"bcos_\w+ was measured at 64 px, not at 224"):
        model_table.read_costs()
