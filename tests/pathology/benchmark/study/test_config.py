"""Studies as YAML: what is wrong is told by file and key, before anything is computed."""

import pytest
import yaml

from pathology.benchmark.study.config import load_study, read_study

GOOD = {
    "data": {"plain": {"kind": "synthetic", "size_px": 32}},
    "backbones": [{"model": "bcos_resnet18", "twin": True}],
    "methods": ["bcos", {"name": "smoothgrad", "as": "sg4", "samples": 4}, "oracle"],
    "metrics": ["grid", {"localisation": {"repeats": 10}}],
}


def test_a_study_is_read_whole(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    study = load_study(path)
    assert study.name == study.title == "mine"
    assert [each.name for each in study.backbones] == ["bcos_resnet18", "resnet18"]
    assert {each.pair for each in study.backbones} == {"resnet18"}
    assert [(m.label, m.name, m.settings) for m in study.methods] == [
        ("bcos", "bcos", {}), ("sg4", "smoothgrad", {"samples": 4}), ("oracle", "oracle", {}),
    ]  # fmt: skip
    # In the order of reports, with all settings.
    assert list(study.metrics) == ["localisation", "grid"]
    assert study.metrics["localisation"] == {"repeats": 10}
    assert study.metrics["grid"]["cells"] == 2
    assert (study.seeds, study.pictures, study.slides) == ((0,), 4, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": []}, "backbone: no such key; did you mean backbones?"),
        ({"methods": ["bcoss"]}, "bcoss'; did you mean bcos"),
        ({"methods": [{"name": "smoothgrad", "sample": 4}]}, "has no setting 'sample'"),
        ({"methods": ["bcos", "bcos"]}, "methods: bcos stands there twice"),
        ({"methods": [{"as": "x"}]}, "methods[0]: has no name"),
        ({"methods": [{"name": "oracle", "masks": 1}]}, "methods.oracle: has no settings"),
        ({"metrics": ["localization"]}, "no group 'localization'; did you mean localisation?"),
        ({"metrics": [{"grid": {"cell": 3}}]}, "metrics.grid.cell: no such setting; did you mean"),
        ({"metrics": [{"grid": {"cells": "3"}}]}, "metrics.grid.cells: got '3', wanted such as 2"),
        ({"metrics": [{"grid": {"cells": -3}}]}, "metrics.grid.cells: got -3"),
        ({"metrics": [{"ledger": {"x": 3}}]}, "metrics.ledger.x: no such setting; it has none"),
        ({"metrics": ["grid", {"grid": {}}]}, "metrics: grid stands there twice"),
        ({"backbones": ["bcos_resnet19"]}, "'bcos_resnet19'; did you mean bcos_resnet18?"),
        ({"backbones": [{"model": "resnet18", "depth": 3}]}, "no key 'depth'"),
        ({"backbones": [3]}, "backbones[0]: got 3, wanted settings"),
        ({"backbones": [{"model": 3}]}, "backbones[0].model: got 3, wanted a name"),
        ({"backbones": [{"model": "bcos_resnet18", "twin": 3}]}, "backbones[0].twin: got 3"),
        ({"training": {"epoch": 3}}, "training has no setting 'epoch'; did you mean epochs?"),
        ({"training": {"epochs": 0}}, "trainer.max_epochs is 0, wanted a number of at least 1"),
        ({"training": {"lr": "fast"}}, "model.lr is 'fast', wanted a number"),
        ({"metrics": [{"cost": {"seconds": float("nan")}}]}, "metrics.cost.seconds: got nan"),
        ({"name": "../../there"}, "name: '../../there' has letters other than"),
        ({"seeds": [2**32]}, "seeds: 4294967296 is too large"),
        ({"data": {"plain": {"kind": "synthetc"}}}, "data.plain: kind"),
        ({"data": {"plain": {"kind": "synthetic", "size": 3}}}, "data.plain: tile sets of kind"),
        ({"data": {"a b": {"kind": "synthetic"}}}, "data.a b: 'a b' has letters other than"),
        ({"data": {}, "slides": {"encoder": "x"}}, "data and backbones go together"),
        ({"data": {}}, "data and backbones are needed, or slides"),
        ({"seeds": []}, "seeds: got [], wanted a list such as [0, 1, 2]"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] has one twice"),
        ({"examples": {"train": 3}}, "examples.train: no such part"),
        ({"pictures": -1}, "pictures: got -1, wanted a whole number of at least 0"),
        ({"batch": 0}, "batch: got 0, wanted a whole number of at least 1"),
        ({"slides": {"encoder": {"data": "x", "backbone": "resnet18"}}}, "slides.encoder.data"),
        ({"slides": {"encodr": "x"}}, "slides.encodr: no such key"),
        ({"metrics": [{"grid": {"cells": 1}}]}, "metrics.grid.cells: must be at least 2, got 1"),
        ({"metrics": [{"grid": {"kernel": 4}}]}, "metrics.grid.kernel: must be 0 or odd, got 4"),
        ({"metrics": [{"folds": {"folds": 1}}]}, "metrics.folds.folds: must be at least 2"),
        ({"metrics": [{"faithfulness": {"fill": "grass"}}]}, "metrics.faithfulness.fill: "),
        ({"metrics": [{"faithfulness": {"levels": [0.5]}}]}, "metrics.faithfulness.levels: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(changes, message):
    with pytest.raises(ValueError) as told:  # noqa: PT011, the message is looked at
        read_study({**GOOD, **changes})
    assert message in str(told.value)


def test_files_that_are_no_studies_are_refused_by_name(tmp_path):
    for text, message in (
        ("a: [", "not YAML"), ("- 1", "holds no study"), ("x: 1", "no such key"),
        ("data: {a: {kind: x}, a: {}}", "not YAML: a stands there twice .*line 1, column 22"),
        ("training: &x {lr: *x}", "not YAML: Circular"),
    ):  # fmt: skip
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as told:
            load_study(path)
        assert str(path) in str(told.value)
    with pytest.raises(ValueError, match="cannot be read"):
        load_study(tmp_path / "none.yaml")


def test_rates_may_be_written_as_people_do(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD) + "training: {lr: 1e-3, epochs: 3}\nseeds: [10]\n")
    assert load_study(path).training == {"lr": 0.001, "epochs": 3}
