"""Exact heatmaps of a slide model, through the command line."""

import csv
import json
from dataclasses import replace

import pandas as pd
import pytest

from pathology.errors import ManifestError, StampMismatchError
from pathology.maps.ome_tiff import read_ome_tiff
from pathology.runs.encoder_choice import EncoderChoice
from tests.cli.made_slides import write_slide
from tests.pathology.viewer.model.asked import asked

ENCODER = ["--encoder", "bcos_vit_tiny_patch16_224", "--encoder-args", "{img_size: 32, depth: 1}"]
SAME = [*ENCODER, "--encoder-seed", "0"]
TILES = ["--size-px", "32", "--tile-mpp", "2.0", "--exclude", "none"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six labelled slides, two per split, their tiles and features."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("made")
    with (folder / "slides.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("slide_id", "patient_id", "path", "split", "label", "grade"))
        for i in range(6):
            write_slide(folder / f"s{i}.tif", i, side=256)
            split = ("train", "val", "test")[i // 2]
            rows.writerow((f"s{i}", f"p{i}", f"s{i}.tif", split, "AB"[i % 2], i % 2))
    slides, tiles = str(folder / "slides.csv"), str(folder / "tiles")
    assert main(["tile", "--slides", slides, "--out", tiles, *TILES]) == 0
    features = ["features", "--slides", slides, "--tiles", tiles, "--device", "cpu"]
    assert main([*features, "--out", str(folder / "features"), *SAME]) == 0
    return folder


def train(made, run, *more):
    return [
        "train", "--task", "slides", "--out", str(run), "--data.manifest",
        str(made / "slides.csv"), "--data.features", str(made / "features"),
        "--data.num_workers", "0", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    """A gated sum of one epoch."""
    from pathology.cli import main

    run = tmp_path_factory.mktemp("run") / "gated"
    more = ["--data.classes", "[A, B]", "--model.aggregator", "bcos_gated_sum"]
    assert main(train(made, run, *more)) == 0
    return run


def explain(made, run, out, *more):
    return [
        "explain", "--run", run, "--slides", made / "s4.tif", "--tiles", made / "tiles",
        "--out", out, "--device", "cpu", *more,
    ]  # fmt: skip


def test_the_slides_score_is_explained_to_pixels(pathology, made, run, tmp_path):
    code, out, err = pathology(*explain(made, run, tmp_path, *SAME, "--target", "B"))
    assert code == 0, err
    folder = tmp_path / "s4" / "B"
    record = json.loads((folder / "explanation.json").read_text())
    ledger = record["ledger"]
    assert ledger["is_closed"]
    heatmap, _ = read_ome_tiff(folder / "heatmap.ome.tif")
    assert heatmap.sum() == pytest.approx(ledger["map_sum"], abs=1e-6)
    tiles = pd.read_parquet(folder / "tiles.parquet")
    # float32
    assert (tiles["removal_effect"] - tiles["contribution"]).abs().max() < 1e-5
    # What is explained is what is predicted.
    assert pathology("evaluate", "--run", run, "--split", "test", "--device", "cpu")[0] == 0
    predictions = pd.read_parquet(run / "evaluation" / "test.parquet").set_index("name")
    assert ledger["score"] == pytest.approx(predictions.loc["s4", "logit_B"], abs=1e-5)
    assert record["provenance"]["slide score"] == "bcos_gated_sum of the tiles' features"
    report = (folder / "report.html").read_text()
    assert "without it the score would be lower" in report
    code, out, _ = pathology(*explain(made, run, tmp_path, *SAME, "--target", "B"))
    assert (code, out.count("made before")) == (0, 1)


def test_the_run_is_asked_again_with_the_same_encoder(pathology, made, run, tmp_path):
    assert pathology(*explain(made, run, tmp_path, *SAME, "--target", "B"))[0] == 0
    folder, slide = tmp_path / "s4" / "B", made / "s4.tif"
    choice = EncoderChoice(SAME[1], seed=0, arguments={"img_size": 32, "depth": 1})
    tile, without = asked(folder, slide, run, 2, (10, 10, 100, 90), encoder=choice)
    assert not tile.result["check"]["differs"]
    tiles = pd.read_parquet(folder / "tiles.parquet")
    # float32
    assert tile.result["maps"][0]["sum"] == pytest.approx(tiles["contribution"][2], abs=1e-5)
    assert not without["score"]["differs"]
    assert 0 < without["tiles"]["run"] < without["tiles"]["all"] == len(tiles)
    assert without["change"] != 0
    with pytest.raises(ManifestError, match="give --encoder"):
        asked(folder, slide, run)
    with pytest.raises(StampMismatchError, match="weights"):
        asked(folder, slide, run, encoder=replace(choice, seed=1))


def test_calibrated_logits_are_explained_as_exactly(pathology, made, run, tmp_path):
    assert pathology(*explain(made, run, tmp_path / "a", *SAME, "--target", "A"))[0] == 0
    assert pathology("calibrate", "--run", run, "--device", "cpu")[0] == 0
    stored = run / "calibration.json"
    values = json.loads(stored.read_text()) | {"temperatures": [2.0, 3.0], "shifts": [0.5, 0.0]}
    stored.write_text(json.dumps(values))
    more = ["--target", "A", "--calibrated"]
    assert pathology(*explain(made, run, tmp_path / "b", *SAME, *more))[0] == 0
    before, after = (
        json.loads((tmp_path / name / "s4" / "A" / "explanation.json").read_text())["ledger"]
        for name in "ab"
    )
    assert after["is_closed"]
    assert after["map_sum"] == pytest.approx(before["map_sum"] / 2, abs=1e-6)
    assert after["bias"] == pytest.approx(before["bias"] / 2 + 0.5)
    assert after["score"] == pytest.approx(before["score"] / 2 + 0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["--encoder", "bcos_vit_tiny_patch16_224"]),
        ([*ENCODER, "--encoder-seed", "1"], ["weights"]),
        ([*SAME, "--pooling", "top3"], ["--pooling"]),
        ([*SAME, "--target", "C"], ["A, B"]),
        ([*SAME, "--depth", "nowhere"], ["--depth", "nowhere"]),
    ],
)
def test_what_does_not_go_with_the_run_is_refused(refused, made, run, tmp_path, more, words):
    line = refused(*explain(made, run, tmp_path, *more))
    assert all(word in line for word in words), line
    assert not list(tmp_path.glob("*/*"))


def test_tiles_cut_otherwise_are_refused(pathology, refused, made, run, tmp_path):
    tiles = tmp_path / "tiles"
    slide = ["--slides", made / "s4.tif"]
    assert pathology("tile", *slide, "--out", tiles, *TILES, "--overlap-px", "8")[0] == 0
    line = refused(
        "explain", "--run", run, *slide, "--tiles", tiles, "--out", tmp_path / "out",
        "--device", "cpu", *SAME,
    )  # fmt: skip
    assert "overlap" in line


def test_a_grade_is_explained_by_its_one_number(pathology, made, tmp_path):
    run = tmp_path / "run"
    more = ["--data.outcome", "grades", "--data.classes", "[low, high]"]
    code, _, err = pathology(*train(made, run, *more, "--model.aggregator", "bcos_pooled"))
    assert code == 0, err
    code, _, err = pathology(*explain(made, run, tmp_path / "out", *SAME, "--depth", "tiles"))
    assert code == 0, err
    folder = tmp_path / "out" / "s4" / "predicted"
    record = json.loads((folder / "explanation.json").read_text())
    assert record["target"] == "grade"
    assert record["ledger"]["is_closed"]
