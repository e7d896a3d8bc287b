"""A dense run through the command line: trained, evaluated, explained, and not mixed up."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.cli.predicted import open_source
from pathology.runs.trained import load_trained
from pathology.tasks.checkpoint import load_task
from tests.cli.test_chain import explain_arguments

SMALL = "{growth_rate: 8, block_config: [2, 1]}"
NAMED = ((0, "normal"), (1, "tumour"))


def train_arguments(cohort, tiles, run, *more):
    of_slides = [] if tiles is None else ["--data.tiles", tiles]
    return [
        "train", "--out", run, "--model.model", "bcos_densenet121", "--model.model_args", SMALL,
        "--data.manifest", cohort, *of_slides, "--data.classes", "[normal, tumour]",
        "--data.batch_size", "16", "--data.num_workers", "0", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--trainer.limit_train_batches", "4", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def dense_run(cohort, cohort_tiles, tmp_path_factory):
    from pathology.cli import main

    run = tmp_path_factory.mktemp("dense") / "run"
    arguments = train_arguments(cohort, cohort_tiles, run, "--data.dense_halo_px", "24")
    assert main([str(word) for word in arguments]) == 0
    return run


def test_a_run_says_that_it_is_dense(dense_run):
    made = json.loads((dense_run / "made_from.json").read_text())
    assert (made["size_px"], made["halo_px"]) == (64, 24)
    assert "dense_halo_px: 24" in (dense_run / "config.yaml").read_text()
    weights = load_task(dense_run / "checkpoints" / "best.safetensors")[0]
    assert weights.dense.halo_px == 24


def test_it_is_evaluated_on_tiles_with_their_halo(
    pathology, refused, cohort, cohort_tiles, dense_run, tmp_path
):
    code, out, _ = pathology("evaluate", "--run", dense_run, "--out", tmp_path / "measured")
    assert code == 0
    assert "auroc" in out
    trained = load_trained(dense_run, "cpu")
    assert open_source(dense_run, trained, "val").picture(0).shape == (64, 64, 3)
    line = refused(
        "features", "--encoder", dense_run, "--slides", cohort, "--tiles", cohort_tiles,
        "--out", tmp_path / "features",
    )  # fmt: skip
    assert "no features of tiles by themselves" in line


def test_plain_and_dense_runs_are_not_mixed(refused, cohort, cohort_tiles, dense_run):
    line = refused(*train_arguments(cohort, cohort_tiles, dense_run))
    assert "dense_halo_px=24, this one has None" in line
    line = refused(*train_arguments(cohort, cohort_tiles, dense_run, "--data.dense_halo_px", "32"))
    assert "dense_halo_px=24, this one has 32" in line


def test_tiles_of_no_whole_strides_are_one_line(refused, tmp_path):
    rows = [f"{split}{i}.png,{name},{split}" for split in ("train", "val") for i, name in NAMED]
    for row in rows:
        Image.new("RGB", (68, 68)).save(tmp_path / row.split(",")[0])
    manifest = tmp_path / "images.csv"
    manifest.write_text("\n".join(["path,label,split", *rows]) + "\n")
    words = train_arguments(manifest, None, tmp_path / "run", "--data.dense_halo_px", "24")
    assert "tiles must be a multiple of 8 px, got 20" in refused(*words, "--data.size_px", "20")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_halo_too_small_is_one_line(refused, cohort, cohort_tiles, tmp_path):
    small = train_arguments(cohort, cohort_tiles, tmp_path / "run", "--data.dense_halo_px", "16")
    assert "at least 24 and a multiple of 8" in refused(*small)
    assert not (tmp_path / "run").exists()


def test_an_explanation_is_of_the_dense_logits(
    pathology, cohort, cohort_tiles, dense_run, tmp_path
):
    from pathology.data.manifest import read_slide_manifest
    from pathology.data.tiles import SlideTiles

    slide = cohort.parent / "test_000.tif"
    out = tmp_path / "explained"
    words = explain_arguments(dense_run, slide, cohort_tiles, out, "--target", "tumour")
    code, told, _ = pathology(*words)
    assert code == 0
    assert "closed" in told
    folder = out / "test_000" / "tumour"
    record = json.loads((folder / "explanation.json").read_text())
    assert record["settings"]["dense_halo_px"] == 24
    assert "halo of 24 px" in record["provenance"]["evaluation"]
    table = pd.read_parquet(folder / "tiles.parquet")

    # What training and evaluation read and see of the same tiles, one by one.
    task = load_trained(dense_run, "cpu").task
    rows = read_slide_manifest(cohort)
    rows = rows[rows["slide_id"] == "test_000"].reset_index(drop=True)
    tiles = SlideTiles(rows, cohort_tiles, None, halo_px=24)
    some = range(0, len(tiles), 5)
    wanted = np.concatenate(
        [task.predict_step({"image": tiles[i]["image"][None]}).detach() for i in some]
    )
    found = table[["logit_normal", "logit_tumour"]].to_numpy()
    assert len(found) == len(tiles)
    np.testing.assert_allclose(found[some], wanted, atol=1e-4)
    assert record["ledger"]["score"] == pytest.approx(found[:, 1].mean(), abs=1e-4)
    code, told, _ = pathology(*words)
    assert (code, "made before" in told) == (0, True)
