"""docs/tutorials/compare_vit_with_cnn.md, followed with fewer and smaller tiles, an epoch each."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from pathology.benchmark.backbones import training
from pathology.benchmark.tile_sets import load_tile_set, make_maker
from pathology.cli import main
from tests.docs.pages import DOCS, fences, run_page

PAGE = "tutorials/compare_vit_with_cnn.md"
SHORT = {
    '"size_px": 64': '"size_px": 32',
    "size_px: 64\n": "size_px: 32\n",
    "img_size: 64": "img_size: 32",
    "depth: 3": "depth: 1",
    "block_config: [2, 2, 2]": "block_config: [1, 1]",
    '"per_patient": 10': '"per_patient": 20',
    "per_patient: 10": "per_patient: 20",
    '{"train": 240, "val": 60, "test": 120}': '{"train": 20, "val": 20, "test": 40}',
    "{train: 240, val: 60, test: 120}": "{train: 20, val: 20, test: 40}",
    "batch_size: 16}": "batch_size: 16, num_workers: 0}",
    "max_epochs: 10": "max_epochs: 1, accelerator: cpu, enable_progress_bar: false",
    "warmup_epochs: 2}": "warmup_epochs: 0}",
    "{epochs: 10": "{epochs: 1",
    "mosaics: 12": "mosaics: 2",
    "test: 40, validation: 12": "test: 6, validation: 4",
    "--out report": "--out report --device cpu",
}


class InThisProcess:
    """A training of a study without a process of its own: importing torch anew takes longest."""

    def __init__(self, words, **_):
        self.code = main(words[len(training.PROGRAM) :])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which the page was followed, and what was printed."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "subprocess", SimpleNamespace(Popen=InThisProcess, PIPE=None))
        patch.setattr(training, "_wait", lambda process, *_: (process.code, {}))
        return folder, run_page(PAGE, folder, patch, SHORT)


def test_both_sides_are_measured_on_the_same_patients(followed):
    folder, ran = followed
    first, second = (text for command, text in ran.printed if "summarise" in command)
    tiles = load_tile_set(folder / "tiles").split("test")
    patients = len(set(tiles.patients))
    for text in (first, second):
        assert "2 seeds" in text
        assert "minus 2 seeds" in text
        assert f"40 examples of {patients} groups" in text
    table = pd.read_csv(folder / "twins.csv").set_index("measure")
    row = table.loc["auroc"]
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert "nll" in table.index


def test_a_networks_file_overrules_nothing_but_the_network(followed):
    folder, _ = followed
    settings = {
        name: yaml.safe_load((folder / "runs" / name / "config.yaml").read_text())
        for name in ("cnn_0", "twin_0", "vit_0", "vit_1")
    }
    ours = settings["cnn_0"]
    for name, theirs in settings.items():
        assert theirs["data"] == ours["data"], name
        assert theirs["trainer"] == ours["trainer"], name
        differ = {key for key, value in theirs["model"].items() if value != ours["model"][key]}
        assert differ <= {"model", "model_args", "lr"}, name
    assert settings["vit_1"]["seed_everything"] == 1


def test_the_study_sees_the_same_tiles(followed):
    folder, _ = followed
    mine = load_tile_set(folder / "tiles")
    (theirs,) = (load_tile_set(path.parent) for path in (folder / "report").rglob("set.json"))
    assert mine.stamp == theirs.stamp
    assert np.array_equal(mine.split("test").images, theirs.split("test").images)


def test_the_study_says_what_the_page_reads(followed):
    folder, ran = followed
    results = pd.read_parquet(folder / "report" / "results.parquet")
    assert set(results["backbone"]) == {
        "bcos_densenet121",
        "densenet121",
        "bcos_vitc_tiny_patch16_224",
    }
    refused = results[results["group"] == "refused"]
    assert {("bcos", "densenet121"), ("ledger", "bcos_densenet121")} <= set(
        zip(refused["method"], refused["backbone"], strict=True)
    )
    shown = ran.names["maps"].pivot_table("value", "method", "backbone")
    assert (shown.loc["oracle"] >= shown.drop(index="oracle").max() - 1e-9).all()
    assert shown.loc["random"].between(0.5, 1.5).all()
    commands = (folder / "report" / "commands.txt").read_text()
    assert commands.count("pathology train ") == 3
    page = (folder / "report" / "report.html").read_text()
    for words in ("Green outlines the evidence", "Networks: accuracy, calibration, cost"):
        assert words in page


def test_the_settings_for_tiles_of_ones_own_are_some(followed, monkeypatch):
    folder, _ = followed
    monkeypatch.chdir(folder)
    text = (DOCS / PAGE).read_text()
    (own,) = (body for kind, body in fences(text) if kind == "yaml" and "kind: folder" in body)
    maker = make_maker(yaml.safe_load(own)["data"]["mine"])
    assert maker.classes == ("normal", "tumour")
    assert Path(maker.path).is_file()
