"""Stain space through the command line: train, evaluate, explain; maps come apart by stain."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bcos_vit.stain_space import STAINS, StainSpace
from pathology.maps.ome_tiff import read_ome_tiff
from tests.pathology.viewer.model.asked import asked


def train_arguments(cohort, cohort_tiles, run, *more):
    return [
        "train", "--out", run, "--model.model", "bcos_vit_tiny_patch16_224",
        "--model.model_args", "{img_size: 64, depth: 2}", "--model.model_args.encoding", "stain",
        "--data.manifest", cohort, "--data.tiles", cohort_tiles,
        "--data.classes", "[normal, tumour]", "--data.batch_size", "16",
        "--data.num_workers", "0", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--trainer.limit_train_batches", "10",
        *more,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def trained(cohort, cohort_tiles, tmp_path_factory):
    """A run of one epoch in stain space, with its own white."""
    from pathology.cli import main

    run = tmp_path_factory.mktemp("runs") / "stain"
    white = ["--model.stain_space", "{white: [0.93, 0.92, 0.93]}"]
    arguments = train_arguments(cohort, cohort_tiles, run, *white)
    assert main([str(argument) for argument in arguments]) == 0
    return run


@pytest.fixture(scope="session")
def explained(trained, cohort, cohort_tiles, tmp_path_factory):
    """The folder of the test slide's explanation."""
    from pathology.cli import main

    out = tmp_path_factory.mktemp("explained")
    arguments = [
        "explain", "--run", trained, "--slides", cohort.parent / "test_000.tif",
        "--tiles", cohort_tiles, "--out", out, "--target", "tumour", "--device", "cpu",
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    return out / "test_000" / "tumour"


def test_it_evaluates(pathology, trained):
    code, out, _ = pathology("evaluate", "--run", trained, "--split", "test", "--device", "cpu")
    assert (code, "auroc" in out) == (0, True)


def test_a_run_explains_with_the_stains_it_was_trained_with(trained):
    from pathology.tasks.checkpoint import load_task

    stored = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    space = StainSpace(white=(0.93, 0.92, 0.93))
    assert StainSpace(**stored["encoding.stains._extra_state"]) == space
    for path in (trained, trained / "checkpoints" / "best.safetensors"):
        task, _ = load_task(path)
        assert task.model.encoding == task.encoding.name == "stain"
        assert task.encoding.stain_space == space


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.stain_space", "{white: [243, 243, 243]}"], "divide 8-bit values by 255"),
        (["--model.stain_space", "{glass: 0.9}"], "stain_space takes haematoxylin"),
        (["--model.model_args.encoding", "stains"], "encoding must be one of"),
    ],
)
def test_what_is_no_stain_space_is_refused_in_a_line(
    refused, cohort, cohort_tiles, tmp_path, arguments, message
):
    line = refused(*train_arguments(cohort, cohort_tiles, tmp_path / "run", *arguments))
    assert message in line


def test_the_maps_of_the_stains_sum_to_the_map(explained):
    record = json.loads((explained / "explanation.json").read_text())
    assert record["ledger"]["is_closed"]
    whole = read_ome_tiff(explained / "heatmap.ome.tif")[0].values
    parts = [read_ome_tiff(explained / f"heatmap_{name}.ome.tif")[0].values for name in STAINS]
    assert all(np.nanmax(np.abs(part)) > 0 for part in parts)
    scale = np.nanmax(np.abs(whole))
    # Each is stored in float32, and the weights of a stain were summed in it.
    np.testing.assert_allclose(sum(parts), whole, rtol=0, atol=1e-5 * scale)
    total = record["ledger"]["map_sum"] + record["ledger"]["cut_off"]
    assert sum(record["stains"].values()) == pytest.approx(total, abs=record["ledger"]["tolerance"])
    assert all((explained / f"overlay_{name}.png").stat().st_size for name in STAINS)


def test_the_model_is_asked_again_in_stain_space(trained, explained, cohort):
    table = pd.read_parquet(explained / "tiles.parquet")
    index = int((table["weight"] * table["contribution"]).abs().idxmax())
    x, y = table.loc[index, ["x", "y"]]
    slide = cohort.parent / "test_000.tif"
    tile, without = asked(explained, slide, trained, index, (x + 5, y + 5, x + 60, y + 60))
    assert not tile.result["check"]["differs"]
    # Six channels that are no colours.
    assert tile.result["maps"][0]["picture"] is None
    assert "weights.png" not in tile.parts
    assert not without["score"]["differs"]
    assert without["linear"]["change"] != 0


def test_tiles_say_what_each_stain_adds(explained):
    tiles = pd.read_parquet(explained / "tiles.parquet")
    np.testing.assert_allclose(
        tiles[list(STAINS)].sum(axis=1), tiles["contribution"], rtol=0, atol=1e-5
    )


def test_the_report_names_the_input_and_the_stains(explained):
    html = (explained / "report.html").read_text()
    assert "stain space: haematoxylin 0.6511 0.7012 0.2905" in html
    assert "white 0.9300 0.9200 0.9300" in html
    assert "by stain" in html
    # The colours of W(x) would be read off six channels that are no colours.
    assert "weights W(x) look for" not in html


def test_at_a_depth_there_are_no_maps_of_stains(pathology, trained, cohort, cohort_tiles, tmp_path):
    code, _, _ = pathology(
        "explain", "--run", trained, "--slides", cohort.parent / "test_000.tif",
        "--tiles", cohort_tiles, "--out", tmp_path, "--target", "tumour", "--device", "cpu",
        "--depth", "blocks.0",
    )  # fmt: skip
    folder = tmp_path / "test_000" / "tumour"
    assert code == 0
    assert json.loads((folder / "explanation.json").read_text())["stains"] == {}
    assert list(folder.glob("*_eosin*")) == []
    html = (folder / "report.html").read_text()
    assert "stain space: haematoxylin 0.6511" in html
    assert "by stain" not in html
    assert "Pixels and their channels are not told apart" in html
