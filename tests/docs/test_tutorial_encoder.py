"""docs/tutorials/your_own_encoder.md, followed with fewer slides and epochs."""

import numpy as np
import pandas as pd
import pytest

from pathology.api import load_explanation
from pathology.cli import main
from tests.docs.pages import DOCS, run_page

PAGE = "tutorials/your_own_encoder.md"
SIZE = "{pretrained_cfg_overlay: {input_size: [3, 64, 64]}}"
SHORT = {
    "train=6": "train=1",
    "val=3": "val=1",
    "test=3": "test=1",
    "normal_slides=(6, 3, 3)": "normal_slides=(1, 1, 1)",
    "batch_size: 16}": "batch_size: 16, num_workers: 0}",
    "batch_size: 4}": "batch_size: 2, num_workers: 0}",
    "max_epochs: 40": "max_epochs: 2, accelerator: cpu, enable_progress_bar: false",
    "max_epochs: 8": "max_epochs: 1, accelerator: cpu, enable_progress_bar: false",
    "max_epochs: 5": "max_epochs: 1, accelerator: cpu, enable_progress_bar: false",
    "bcosify_epochs: 2\n": "bcosify_epochs: 0.5\n",
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which the page was followed, and what was printed."""
    folder = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        return folder, run_page(PAGE, folder, patch, SHORT)


def test_an_encoder_by_name_and_by_function_is_the_same(followed):
    _, ran = followed
    by_name, by_function = ran.names["by_name"], ran.names["by_function"]
    assert by_name.shape[1] == 512
    assert abs(by_name - by_function).max() == 0
    assert abs(by_name).max() > 0.1


def test_without_normalisation_the_command_refuses_as_the_page_says(followed, monkeypatch, capsys):
    folder, _ = followed
    monkeypatch.chdir(folder)
    words = [
        "features", "--slides", "slides/slides.csv", "--tiles", "tiles/", "--out", "other/",
        "--encoder", "resnet18", "--encoder-args", SIZE,
        "--weights", "weights/encoder.safetensors",
    ]  # fmt: skip
    assert main(words) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in " ".join((DOCS / PAGE).read_text().split())


def test_tiles_add_up_to_the_slides_score(followed):
    folder, ran = followed
    stored = load_explanation(folder / "explained/test_000/tumour")
    assert stored.ledger.is_closed
    tiles = stored.tiles
    total = tiles["contribution"].sum() + stored.ledger.bias
    assert total == pytest.approx(stored.ledger.score, abs=1e-5)
    assert (tiles["removal_effect"] - tiles["contribution"]).abs().max() < 1e-5
    predicted = pd.read_parquet(folder / "runs/slides/evaluation/test.parquet").set_index("name")
    assert stored.ledger.score == pytest.approx(predicted.loc["test_000", "logit_tumour"], abs=1e-5)
    assert "closed" in ran.output_of("pathology explain")


def test_pixels_of_a_conventional_encoder_are_refused(followed, monkeypatch, capsys):
    folder, _ = followed
    monkeypatch.chdir(folder)
    words = [
        "explain", "--run", "runs/slides", "--slides", "slides/test_000.tif", "--tiles", "tiles/",
        "--out", "pixels/", "--target", "tumour", "--encoder", "resnet18",
        "--encoder-args", SIZE, "--weights", "weights/encoder.safetensors",
        "--pixels", "imagenet",
    ]  # fmt: skip
    assert main(words) == 2
    assert "--depth tiles" in capsys.readouterr().err


def test_conversion_begins_as_the_same_function(followed):
    _, ran = followed
    scale = float(ran.names["before"].abs().max())
    assert float((ran.names["before"] - ran.names["after"]).abs().max()) < 1e-4 * scale


def test_the_converted_network_is_exact_to_pixels(followed):
    folder, ran = followed
    stored = load_explanation(folder / "explained_converted/test_000/tumour")
    assert stored.ledger.is_closed
    assert not any(stored.ledger.constants.values())  # no biases are left
    assert np.nanmax(np.abs(stored.map("heatmap").values)) > 0
    assert "runs/converted: val_auroc_as_bcos" in ran.output_of(
        "pathology train --config converted.yaml"
    )
    measured = [command for command, _ in ran.printed if command.startswith("pathology evaluate")]
    assert any("runs/stand_in" in command for command in measured)
    assert any("runs/converted" in command for command in measured)
