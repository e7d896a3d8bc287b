"""From slides to a model of slides: tile, features, train, evaluate; or an encoder with it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from pathology.cli import main
from pathology.data.bag_module import BagDataModule
from pathology.data.bag_sampler import Draw

SMOKE = Path(__file__).parents[2] / "configs" / "smoke" / "mil.yaml"
ENCODER = ["--encoder", "test_vit", "--encoder-args", "{img_size: 32}", "--device", "cpu"]


def write_slide(path, seed, is_tumour):
    """Pink tissue on glass; in a tumour slide part of it is violet."""
    rng = np.random.default_rng(seed)
    pixels = np.full((256, 256, 3), 242, np.uint8)
    tissue = rng.normal((214, 150, 190), 12, (160, 160, 3))
    if is_tumour:
        x, y = rng.integers(0, 64, 2)
        tissue[y : y + 96, x : x + 96] = rng.normal((110, 70, 150), 12, (96, 96, 3))
    pixels[48:208, 48:208] = tissue.clip(0, 255)
    options = {"resolution": (5000, 5000), "resolutionunit": "CENTIMETER"}  # 2 um/px
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", compression="zlib", **options
    )


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Folder with slides.csv, tiles/ of 32 px and features/ of a small random network."""
    folder = tmp_path_factory.mktemp("slides")
    rows = []
    for i in range(14):
        split = "train" if i < 8 else "val" if i < 12 else "test"
        name, is_tumour = f"slide_{i:02d}", i % 2 == 1
        write_slide(folder / f"{name}.tif", i, is_tumour)
        label = "tumour" if is_tumour else "normal"
        row = {"slide_id": name, "path": f"{name}.tif", "split": split, "label": label}
        rows.append(row | {"patient_id": f"p{i}"})
    pd.DataFrame(rows).to_csv(folder / "slides.csv", index=False)
    manifest, tiles = str(folder / "slides.csv"), str(folder / "tiles")
    cut = ["tile", "--slides", manifest, "--out", tiles, "--size-px", "32", "--tile-mpp", "2.0"]
    assert main(cut) == 0
    encode = ["features", "--slides", manifest, "--tiles", tiles, "--out", str(folder / "features")]
    assert main([*encode, *ENCODER, "--encoder-seed", "0"]) == 0
    return folder


def train(slides, out, *words):
    data = ["--data.manifest", str(slides / "slides.csv")]
    trainer = ["--trainer.accelerator", "cpu"]
    return main(["train", *map(str, words), "--out", str(out), *data, *trainer])


def test_features_to_a_measured_model(slides, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--config", SMOKE, "--data.features", slides / "features", "--trainer.max_epochs", 12]
    assert train(slides, run, *words) == 0
    assert train(slides, run, *words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["evaluate", "--run", str(run), "--split", "test", "--device", "cpu"]) == 0
    found = json.loads((run / "evaluation" / "test.json").read_text())
    assert found["outcome"] == "classes"
    assert found["metrics"]["auroc"]["value"] == 1.0
    # Features of another encoder are no input of this model.
    other = str(tmp_path / "other")
    manifest, tiles = str(slides / "slides.csv"), str(slides / "tiles")
    encode = ["features", "--slides", manifest, "--tiles", tiles, "--out", other]
    assert main([*encode, *ENCODER, "--encoder-seed", "1"]) == 0
    measure = ["evaluate", "--run", str(run), "--manifest", manifest, "--features", other]
    capsys.readouterr()
    assert main([*measure, "--split", "test", "--device", "cpu"]) == 2
    assert "weights' hash" in capsys.readouterr().err


def test_pixels_and_features_are_of_the_same_tiles(slides):
    classes = ["normal", "tumour"]
    pixels = BagDataModule(str(slides / "slides.csv"), classes, tiles=str(slides / "tiles"))
    numbers = BagDataModule(str(slides / "slides.csv"), classes, str(slides / "features"))
    for which in (1, Draw(1, 0, 0)):
        pixels.dataset("val").most = numbers.dataset("val").most = 5
        a, b = pixels.dataset("val")[which], numbers.dataset("val")[which]
        assert torch.equal(a["positions"], b["positions"])
        assert a["count"] == b["count"] == 32
    assert a["image"].shape == (5, 3, 32, 32)
    # At one to one a tile is what the file holds: x and y of its corner are um of its centre.
    stored = tifffile.imread(slides / "slide_09.tif")
    for image, (x, y) in zip(a["image"], a["positions"].tolist(), strict=True):
        left, top = round(x / 2 - 16), round(y / 2 - 16)
        cut = stored[top : top + 32, left : left + 32]
        assert np.array_equal(image.permute(1, 2, 0), cut)


def test_an_encoder_is_trained_with_the_aggregator(slides, tmp_path):
    config = tmp_path / "both.yaml"
    config.write_text(
        "task: slides\n"
        "model:\n"
        "  aggregator: bcos_gated_sum\n"
        "  aggregator_args: {hidden: 16, attention_hidden: 8, expected_tiles: 16}\n"
        "  encoder: bcos_resnet18\n"
        "  layer_decay: 0.1\n"
        "  lr: 5.0e-3\n"
        "data:\n"
        "  classes: [normal, tumour]\n"
        "  batch_size: 2\n"
        "  max_tiles: 6\n"
        "  max_eval_tiles: 8\n"
        "  num_workers: 0\n"
        "trainer: {max_epochs: 1, log_every_n_steps: 1, enable_progress_bar: false}\n"
    )
    run = tmp_path / "run"
    assert train(slides, run, "--config", config, "--data.tiles", slides / "tiles") == 0
    assert main(["evaluate", "--run", str(run), "--split", "val", "--device", "cpu"]) == 0
    assert (run / "evaluation" / "val.json").is_file()
