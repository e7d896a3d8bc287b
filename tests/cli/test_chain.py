"""Tile, train, evaluate and explain through the command line, and every ugly case on the way."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from pathology.maps.ome_tiff import read_ome_tiff


@pytest.fixture(scope="session")
def trained(cohort, cohort_tiles, tmp_path_factory):
    """A run of one epoch on the tiles of the small cohort."""
    from pathology.cli import main

    run = tmp_path_factory.mktemp("runs") / "vit"
    assert main(train_arguments(cohort, cohort_tiles, run)) == 0
    return run


def train_arguments(cohort, tiles, run, *more):
    return [
        "train", "--out", str(run), "--model.model", "bcos_vit_tiny_patch16_224",
        "--model.model_args", "{img_size: 64, depth: 2}", "--data.manifest", str(cohort),
        "--data.tiles", str(tiles), "--data.classes", "[normal, tumour]",
        "--data.batch_size", "16", "--data.num_workers", "0", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", *more,
    ]  # fmt: skip


def explain_arguments(run, slides, tiles, out, *more):
    return [
        "explain", "--run", run, "--slides", slides, "--tiles", tiles, "--out", out,
        "--device", "cpu", *more,
    ]  # fmt: skip


# --- tile


def test_tiling_again_skips_and_another_specification_is_refused(
    pathology, refused, cohort, cohort_tiles
):
    same = ["--size-px", "64", "--tile-mpp", "0.5"]
    code, out, _ = pathology("tile", "--slides", cohort, "--out", cohort_tiles, *same)
    assert (code, out.count("made before")) == (0, 3)
    line = refused("tile", "--slides", cohort, "--out", cohort_tiles, "--size-px", "32")
    assert "size_px" in line


def test_tiles_carry_labels(cohort_tiles):
    labels = pd.read_parquet(cohort_tiles / "train_000.parquet")["label"]
    assert {"normal", "tumour"} <= set(labels)


def test_a_preview_stands_beside_every_table(cohort_tiles):
    assert (cohort_tiles / "train_000.png").stat().st_size > 0


def test_a_corrupt_slide_stops_or_is_listed(pathology, refused, cohort, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(cohort.parent / "test_000.tif", folder / "good.tif")
    (folder / "bad.svs").write_bytes(b"\0" * 5000)
    line = refused("tile", "--slides", folder, "--out", tmp_path / "a", "--size-px", "64")
    assert "bad.svs" in line
    code, out, _ = pathology(
        "tile", "--slides", folder, "--out", tmp_path / "b", "--size-px", "64", "--keep-going"
    )
    assert code == 3
    assert "1 of 2 slides failed" in out
    assert (tmp_path / "b" / "good.parquet").exists()
    assert not (tmp_path / "b" / "bad.parquet").exists()


def test_a_truncated_slide_is_refused(refused, cohort, tmp_path):
    content = (cohort.parent / "test_000.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 3])
    line = refused("tile", "--slides", tmp_path / "cut.tif", "--out", tmp_path / "t")
    assert "cut.tif" in line
    assert not (tmp_path / "t" / "cut.parquet").exists()


def test_a_slide_without_mpp_says_how_to_give_it(refused, pathology, rng, tmp_path):
    pixels = rng.integers(60, 200, (256, 256, 3), dtype="uint8")
    tifffile.imwrite(tmp_path / "x.tif", pixels, tile=(128, 128), photometric="rgb")
    arguments = ["tile", "--slides", tmp_path / "x.tif", "--out", tmp_path, "--size-px", "32"]
    assert "--mpp" in refused(*arguments)
    assert pathology(*arguments, "--mpp", "0.5", "--min-tissue", "0")[0] == 0


def test_a_blank_slide_has_no_tissue(refused, tmp_path):
    white = np.full((512, 512, 3), 245, np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", white, tile=(128, 128), photometric="rgb")
    line = refused("tile", "--slides", tmp_path / "x.tif", "--out", tmp_path, "--mpp", "0.5")
    assert "x.tif" in line
    assert "tissue" in line


def test_an_output_that_is_a_file_is_refused(refused, cohort, tmp_path):
    (tmp_path / "taken").write_text("")
    line = refused("tile", "--slides", cohort, "--out", tmp_path / "taken" / "tiles")
    assert "cannot be written" in line


def test_an_empty_folder_and_an_empty_manifest_are_refused(refused, tmp_path):
    assert "no slide in this folder" in refused("tile", "--slides", tmp_path, "--out", tmp_path)
    (tmp_path / "slides.csv").write_text("slide_id,path\n")
    line = refused("tile", "--slides", tmp_path / "slides.csv", "--out", tmp_path)
    assert "empty" in line


# --- train and evaluate


def test_a_run_holds_its_config_and_checkpoints(trained):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["data"]["classes"] == ["normal", "tumour"]
    assert (trained / "checkpoints" / "best.ckpt").exists()
    assert (trained / "finished").exists()
    assert "val_auroc" in (trained / "logs" / "metrics.csv").read_text()
    assert list((trained / "logs").glob("events.out.tfevents*"))


def test_training_again_has_nothing_to_do(pathology, trained, cohort, cohort_tiles):
    code, out, _ = pathology(*train_arguments(cohort, cohort_tiles, trained))
    assert (code, "nothing to do" in out) == (0, True)


def test_a_run_goes_on_with_another_number_of_workers(pathology, trained, cohort, cohort_tiles):
    words = train_arguments(cohort, cohort_tiles, trained, "--data.num_workers", "1")
    code, out, _ = pathology(*words, "--data.multiprocessing_context", "spawn")
    assert (code, "nothing to do" in out) == (0, True)


def test_another_config_in_the_same_run_is_refused(refused, trained, cohort, cohort_tiles):
    line = refused(*train_arguments(cohort, cohort_tiles, trained, "--model.lr", "0.5"))
    assert "model.lr" in line


def test_a_misspelt_setting_is_named(refused, cohort, cohort_tiles, tmp_path):
    line = refused(
        *train_arguments(cohort, cohort_tiles, tmp_path / "r", "--model.learning_rate", "1")
    )
    assert "learning_rate" in line


def test_a_killed_run_goes_on_where_it_was(pathology, cohort, cohort_tiles, tmp_path):
    run = tmp_path / "run"
    arguments = train_arguments(cohort, cohort_tiles, run)
    arguments[arguments.index("--trainer.max_epochs") + 1] = "3"
    command = [sys.executable, "-m", "pathology.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, "training ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "finished").exists()
    code, out, err = pathology(*arguments)
    assert code == 0, err
    assert "resuming" in out
    epochs = pd.read_csv(run / "logs" / "metrics.csv")["epoch"].dropna()
    assert epochs.max() == 2
    assert yaml.safe_load((run / "finished").read_text())["epochs"] == 3


def test_evaluation_writes_metrics_and_predictions(pathology, trained):
    code, out, _ = pathology("evaluate", "--run", trained, "--split", "test", "--device", "cpu")
    assert code == 0
    record = json.loads((trained / "evaluation" / "test.json").read_text())
    assert 0 <= record["metrics"]["auroc"]["value"] <= 1
    assert record["metrics"]["auroc"]["low"] is None  # a single patient has no interval
    assert len(pd.read_parquet(trained / "evaluation" / "test.parquet")) == record["tiles"]
    assert "auroc" in out


def test_evaluating_other_classes_is_refused(refused, trained, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "tiles.csv").write_text("path,label,split\na.png,stroma,test\n")
    line = refused(
        "evaluate", "--run", trained, "--split", "test", "--manifest", tmp_path / "tiles.csv"
    )
    assert "'stroma' is not one of the classes normal, tumour" in line


def test_a_run_that_does_not_exist_is_refused(refused, tmp_path):
    assert "pathology train" in refused("evaluate", "--run", tmp_path)


# --- explain


@pytest.fixture(scope="session")
def explained(trained, cohort, cohort_tiles, tmp_path_factory):
    from pathology.cli import main

    out = tmp_path_factory.mktemp("explained")
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(trained, slide, cohort_tiles, out, "--target", "tumour")
    assert main([str(a) for a in arguments]) == 0
    return out


def test_an_explanation_is_complete_and_closed(explained):
    folder = explained / "test_000" / "tumour"
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "report.html", "overlay.png", "heatmap.ome.tif", "density.ome.tif", "tiles.parquet",
        "explanation.json", "figure.pdf", "figure.png", "slide.jpg", "tiles.geojson.gz",
        "heatmap.groovy",
    }  # fmt: skip
    ledger = json.loads((folder / "explanation.json").read_text())["ledger"]
    assert ledger["is_closed"]
    slide_map, metadata = read_ome_tiff(folder / "heatmap.ome.tif")
    assert slide_map.sum() == pytest.approx(ledger["map_sum"], abs=1e-9)
    assert metadata["ledger"] == ledger
    density, _ = read_ome_tiff(folder / "density.ome.tif")
    assert density.unit == "logit/mm2"
    # Without overlap each covered pixel is one tile's: its weight is 1/n.
    count = len(pd.read_parquet(folder / "tiles.parquet"))
    inner = np.nanmax(slide_map.values) / density.pixel_area_mm2 * count
    assert np.nanmax(density.values) == pytest.approx(inner, rel=1e-3)
    tiles = pd.read_parquet(folder / "tiles.parquet")
    total = ledger["bias"] + (tiles["weight"] * tiles["contribution"]).sum()
    assert total == pytest.approx(ledger["score"], abs=ledger["tolerance"])


def test_explaining_again_skips_and_other_settings_are_refused(
    pathology, refused, explained, trained, cohort, cohort_tiles
):
    slide = cohort.parent / "test_000.tif"
    same = explain_arguments(trained, slide, cohort_tiles, explained, "--target", "tumour")
    code, out, _ = pathology(*same)
    assert (code, "made before" in out) == (0, True)
    assert "out_mpp=8.0, asked for 4.0" in refused(*same, "--out-mpp", "4")
    assert pathology(*same, "--out-mpp", "4", "--overwrite")[0] == 0
    assert pathology(*same, "--overwrite")[0] == 0


def test_an_explanation_at_a_depth_closes_and_says_so(
    pathology, refused, trained, cohort, cohort_tiles, explained, tmp_path
):
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(trained, slide, cohort_tiles, tmp_path, "--target", "tumour")
    code, out, _ = pathology(*arguments, "--depth", "head")
    assert (code, "closed, tolerance" in out) == (0, True)
    folder = tmp_path / "test_000" / "tumour"
    record = json.loads((folder / "explanation.json").read_text())
    pixels = json.loads((explained / "test_000" / "tumour" / "explanation.json").read_text())
    assert record["settings"]["depth"] == "head"
    # float32, the same tiles by another way back.
    assert record["ledger"]["score"] == pytest.approx(pixels["ledger"]["score"], abs=1e-5)
    # 64 px at 0.5 um/px in patches of 16 px.
    places = "head, 4 x 4 places per tile, each 8 µm wide on the map"
    assert record["provenance"]["depth"].startswith(places)
    assert pixels["provenance"]["depth"] == "pixels of the tiles, 64 x 64"
    html = (folder / "report.html").read_text()
    assert places in html
    assert "weights W(x) look for" not in html
    assert "depth='head', asked for 'pixels'" in refused(*arguments)


def test_an_unknown_depth_is_refused_with_those_there_are(
    refused, trained, cohort, cohort_tiles, tmp_path
):
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(trained, slide, cohort_tiles, tmp_path, "--keep-going")
    line = refused(*arguments, "--depth", "blocks.7")
    assert "--depth must be one of pixels, patch_embed, blocks.0, head" in line
    assert "did you mean 'blocks.0'?" in line


def test_tiles_of_another_size_than_trained_on_are_refused(
    pathology, refused, trained, cohort, tmp_path
):
    slide = cohort.parent / "test_000.tif"
    pathology("tile", "--slides", slide, "--out", tmp_path, "--size-px", "32")
    line = refused(*explain_arguments(trained, slide, tmp_path, tmp_path / "out"))
    assert "trained on 64 px" in line


def test_an_unknown_target_and_missing_tiles_are_refused(
    refused, trained, cohort, cohort_tiles, tmp_path
):
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(trained, slide, cohort_tiles, tmp_path)
    assert "normal, tumour" in refused(*arguments, "--target", "stroma")
    line = refused(*explain_arguments(trained, slide, tmp_path, tmp_path))
    assert "run `pathology tile` first" in line


def test_a_failing_explanation_leaves_nothing(
    refused, trained, cohort, cohort_tiles, tmp_path, monkeypatch
):
    from pathology.errors import LedgerError
    from pathology.explain.ledger import Ledger

    def fail(self):
        raise LedgerError("does not close")

    monkeypatch.setattr(Ledger, "check", fail)
    slide = cohort.parent / "test_000.tif"
    line = refused(*explain_arguments(trained, slide, cohort_tiles, tmp_path / "out"))
    assert "does not close" in line
    assert list((tmp_path / "out" / "test_000").iterdir()) == []


def test_doctor_is_well(pathology):
    code, out, _ = pathology("doctor")
    assert code == 0
    assert "all well" in out
    assert "extra viewer       installed" in out


def test_a_killed_explanation_leaves_nothing_half_done(
    pathology, trained, cohort, cohort_tiles, tmp_path
):
    out = tmp_path / "out"
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(trained, slide, cohort_tiles, out, "--target", "tumour")
    command = [sys.executable, "-m", "pathology.cli", *(str(a) for a in arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = out / "test_000" / "tumour"
    deadline = time.monotonic() + 600
    while not list(folder.parent.glob(".tumour.*.part/stitch")):
        assert process.poll() is None, "explaining ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    code, _, err = pathology(*arguments)
    assert code == 0, err
    assert (folder / "report.html").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["tumour"]


@pytest.mark.parametrize("verb", ["tile", "train", "evaluate", "explain"])
def test_an_output_that_cannot_be_written_is_refused_by_every_verb(
    refused, verb, trained, cohort, cohort_tiles, tmp_path
):
    (tmp_path / "taken").write_text("")
    out = tmp_path / "taken" / "out"
    slide = cohort.parent / "test_000.tif"
    arguments = {
        "tile": ["tile", "--slides", slide, "--out", out],
        "train": train_arguments(cohort, cohort_tiles, out),
        "evaluate": ["evaluate", "--run", trained, "--split", "test", "--out", out],
        "explain": explain_arguments(trained, slide, cohort_tiles, out),
    }[verb]
    assert "cannot be written" in refused(*arguments)


def test_a_missing_image_is_said_before_training(refused, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "tiles.csv").write_text("path,label,split\na.png,x,train\nb.png,y,val\n")
    line = refused(
        "train", "--out", tmp_path / "run", "--model.model", "bcos_resnet18",
        "--data.manifest", tmp_path / "tiles.csv", "--data.classes", "[x, y]",
    )  # fmt: skip
    assert "b.png (row 3)" in line


def test_an_unknown_model_suggests(refused, cohort, cohort_tiles, tmp_path):
    arguments = train_arguments(cohort, cohort_tiles, tmp_path / "run")
    arguments[arguments.index("--model.model") + 1] = "bcos_resnet_18"
    assert "did you mean bcos_resnet18" in refused(*arguments)


# --- what went stale, or would have been mixed


def test_evaluating_the_training_split_takes_each_tile_once_and_unchanged(pathology, trained):
    arguments = ["evaluate", "--run", trained, "--split", "train", "--device", "cpu"]
    assert pathology(*arguments)[0] == 0
    path = trained / "evaluation" / "train.parquet"
    first = pd.read_parquet(path)
    assert pathology(*arguments)[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(path), first)


def test_figures_of_another_manifest_are_not_replaced(refused, trained, cohort, cohort_tiles):
    table = pd.read_csv(cohort)
    other = cohort.parent / "swapped.csv"
    table.assign(split=["val", "test", "train"]).to_csv(other, index=False)
    (trained / "evaluation").mkdir(exist_ok=True)
    record = {"made_from": {"manifest": "mine.csv", "digest": "0"}}
    (trained / "evaluation" / "val.json").write_text(json.dumps(record))
    line = refused(
        "evaluate", "--run", trained, "--split", "val", "--manifest", other,
        "--tiles", cohort_tiles, "--device", "cpu",
    )  # fmt: skip
    assert "holds figures for mine.csv" in line
    (trained / "evaluation" / "val.json").unlink()


def test_a_group_column_that_is_not_there_and_an_unknown_split_are_refused(refused, trained):
    line = refused("evaluate", "--run", trained, "--split", "test", "--group-column", "patient")
    assert "no column 'patient'" in line
    assert "train, val, test" in refused("evaluate", "--run", trained, "--split", "validate")


def test_labels_are_made_anew_when_the_regions_or_the_rule_change(pathology, cohort, tmp_path):
    same = ["tile", "--slides", cohort, "--out", tmp_path, "--size-px", "64"]
    assert pathology(*same, "--label-fraction", "0.5")[0] == 0
    before = pd.read_parquet(tmp_path / "train_000.parquet")
    code, out, _ = pathology(*same, "--label-fraction", "1.0")
    assert (code, "labels made anew" in out) == (0, True)
    after = pd.read_parquet(tmp_path / "train_000.parquet")
    assert (before["label"] != after["label"]).any()
    pd.testing.assert_frame_equal(before.drop(columns="label"), after.drop(columns="label"))


def test_a_run_whose_data_changed_is_refused(refused, pathology, cohort, cohort_tiles, tmp_path):
    manifest = cohort.parent / "changing.csv"
    shutil.copy(cohort, manifest)
    arguments = train_arguments(manifest, cohort_tiles, tmp_path / "run")
    assert pathology(*arguments)[0] == 0
    table = pd.read_csv(manifest)
    table.assign(split=["val", "train", "test"]).to_csv(manifest, index=False)
    assert "have changed" in refused(*arguments)


def test_a_run_that_failed_before_it_began_can_be_corrected(
    refused, pathology, cohort, cohort_tiles, tmp_path
):
    arguments = train_arguments(cohort, cohort_tiles, tmp_path / "run")
    place = arguments.index("--data.classes") + 1
    wrong = [*arguments[:place], "[normal, cancer]", *arguments[place + 1 :]]
    assert "'cancer'" in refused(*wrong)
    assert pathology(*arguments)[0] == 0


def test_a_saved_config_runs_again(pathology, trained, tmp_path):
    config = trained / "config.yaml"
    assert "out:" not in config.read_text()
    code, out, _ = pathology("train", "--config", config, "--out", tmp_path / "again")
    assert (code, "val_auroc" in out) == (0, True)


def test_arguments_a_model_does_not_take_are_refused(refused, cohort, cohort_tiles, tmp_path):
    arguments = train_arguments(cohort, cohort_tiles, tmp_path / "run")
    arguments[arguments.index("--model.model_args") + 1] = "{foo: 3}"
    assert "do not suit bcos_vit_tiny_patch16_224" in refused(*arguments)


def test_replacing_leaves_folders_alone_that_hold_something_else(
    refused, trained, cohort, cohort_tiles, tmp_path
):
    folder = tmp_path / "test_000" / "tumour"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("precious")
    slide = cohort.parent / "test_000.tif"
    same = explain_arguments(trained, slide, cohort_tiles, tmp_path, "--target", "tumour")
    assert "something else" in refused(*same, "--overwrite")
    assert (folder / "mine.txt").read_text() == "precious"


def test_other_tiles_of_the_same_number_are_refused(
    refused, pathology, explained, trained, cohort, cohort_tiles, tmp_path
):
    from pathology.tiling import TileGrid

    grid = TileGrid.load(cohort_tiles / "test_000.parquet")
    TileGrid(grid.spec, grid.source, grid.x + 1, grid.y, grid.tissue, grid.columns).save(
        tmp_path / "test_000.parquet"
    )
    slide = cohort.parent / "test_000.tif"
    same = explain_arguments(trained, slide, tmp_path, explained, "--target", "tumour")
    assert "tile_positions" in refused(*same)


def test_slides_tiled_with_a_given_mpp_can_be_trained_on(pathology, rng, tmp_path):
    from pathology.data.tiles import SlideTiles
    from pathology.tiling import TileGrid

    pixels = rng.integers(60, 200, (256, 256, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, tile=(128, 128), photometric="rgb")
    arguments = ["tile", "--slides", tmp_path / "s.tif", "--out", tmp_path, "--size-px", "32"]
    assert pathology(*arguments, "--mpp", "0.5", "--min-tissue", "0")[0] == 0
    grid = TileGrid.load(tmp_path / "s.parquet")
    grid.with_columns(label=np.array(["a", "b"] * (len(grid) // 2))).save(tmp_path / "s.parquet")
    table = pd.DataFrame({"slide_id": ["s"], "path": [str(tmp_path / "s.tif")]})
    assert SlideTiles(table, tmp_path, ["a", "b"])[0]["image"].shape == (3, 32, 32)


def test_an_error_in_a_reading_process_is_one_line():
    from pathology.cli import one_line

    text = (
        "Caught ManifestError in DataLoader worker process 0.\nOriginal Traceback ...\n"
        "pathology.errors.ManifestError: x.png: tiles must be square, got 10 x 12 px\n"
    )
    assert one_line(RuntimeError(text)).startswith("x.png: tiles must be square")
