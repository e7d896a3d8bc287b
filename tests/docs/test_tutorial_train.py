"""docs/tutorials/train_on_your_tiles.md, followed with fewer tiles and epochs."""

import json
import signal

import pandas as pd
import pytest
import torch
from PIL import Image

from pathology.cli import main
from pathology.data.manifest import read_tile_manifest
from pathology.tasks.tile_classification import TileClassification
from tests.docs.pages import run_page

SHORT = {
    "range(30)": "range(10)",
    "batch_size: 16": "batch_size: 16\n  num_workers: 0",
    "max_epochs: 16": "max_epochs: 2\n  accelerator: cpu\n  enable_progress_bar: false",
    "size_px=(1024, 1024)": "size_px=(512, 512)",
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which the page was followed, and what was printed."""
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        return folder, run_page("tutorials/train_on_your_tiles.md", folder, patch, SHORT)


def test_patients_are_apart(followed):
    folder, ran = followed
    assert "nothing here tells patients" in ran.output_of("pathology data check")
    assert "patients   10" in ran.output_of("pathology data manifest")
    table = read_tile_manifest(folder / "split" / "manifest.csv")
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "val", "test"}
    in_folders = len(list((folder / "tiles").glob("*/*.png")))
    assert len(table) == in_folders > 100


def test_the_run_is_measured_and_calibrated(followed):
    folder, ran = followed
    again = [text for command, text in ran.printed if "first.yaml --out runs/first" in command]
    assert "best epoch" in again[0]
    assert "already trained by this config; nothing to do" in again[1]
    found = json.loads((folder / "runs/first/evaluation/test.json").read_text())
    table = read_tile_manifest(folder / "split" / "manifest.csv")
    test = table[table["split"] == "test"]
    assert (found["tiles"], found["groups"]) == (len(test), test["patient_id"].nunique())
    measures = {"auroc", "auprc", "balanced_accuracy", "ece", "nll", "brier"}
    assert measures <= set(found["metrics"])  # the page explains these
    calibrated = json.loads((folder / "runs/first/evaluation/test_calibrated.json").read_text())
    assert set(calibrated["calibration"]["temperatures"]) == {"normal", "tumour"}
    assert (folder / "runs/first/evaluation/test.html").is_file()


def test_a_tiles_pixels_add_up_to_its_logit(followed):
    folder, ran = followed
    explanation, surest = ran.names["explanation"], ran.names["surest"]
    assert ran.names["total"] == pytest.approx(float(explanation.logit), abs=1e-4)
    assert float(explanation.logit) == pytest.approx(surest["logit_tumour"], abs=1e-3)
    with Image.open(folder / "surest.png") as picture:
        assert picture.size == (512, 512)


def test_slides_are_trained_on_by_the_same_config(followed):
    folder, _ = followed
    found = json.loads((folder / "runs/slides/evaluation/test.json").read_text())
    assert found["groups"] == 2
    labels = pd.read_parquet(folder / "slide_tiles/train_000.parquet")["label"]
    assert {"normal", "tumour"} <= set(labels)
    assert found["tiles"] > 10


def test_a_training_that_is_stopped_comes_to_the_same(followed, monkeypatch, capsys):
    """What the page says of Ctrl-C, by the very config that it trained with."""
    folder, _ = followed
    monkeypatch.chdir(folder)
    step, calls = TileClassification.training_step, []

    def stopping(task, batch):
        calls.append(batch)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(task, batch)

    same = ["train", "--config", "first.yaml", "--out", "runs/stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(TileClassification, "training_step", stopping)
        assert main(same) == 130
    assert not (folder / "runs/stopped/finished").exists()
    assert main(same) == 0
    assert "resuming from" in capsys.readouterr().out
    whole, stopped = (
        torch.load(f"runs/{name}/checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "stopped")
    )
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
