"""Packing a cohort: the same from one process and several, stopped and run again, and refusals."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from pathology.data.manifest import read_slide_manifest
from pathology.data.shard_tiles import ShardTiles
from pathology.data.shards import Shards, shard_name
from pathology.data.tiles import SlideTiles
from pathology.outputs import draft_path
from pathology.tiling import TileGrid


@pytest.fixture
def arguments(cohort, cohort_tiles, tmp_path):
    return ["pack", "--slides", cohort, "--tiles", cohort_tiles, "--out", tmp_path / "shards"]


def read_all(folder):
    """Bytes by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_workers_write_the_same_bytes(pathology, arguments, tmp_path):
    settings = ["--tiles-per-shard", "200", "--quality", "90"]
    code, said, _ = pathology(*arguments, *settings)
    assert code == 0
    assert said.count("the file's own JPEG") == 3
    other = [*arguments[:-1], tmp_path / "parallel", *settings, "--workers", "2"]
    assert pathology(*other)[0] == 0
    assert read_all(tmp_path / "parallel") == read_all(tmp_path / "shards")


def test_tiles_that_are_the_files_own_are_taken_over_and_read_the_same(pathology, cohort, tmp_path):
    tiles, shards = tmp_path / "tiles", tmp_path / "shards"
    size = ["--size-px", "256", "--tile-mpp", "0.5", "--align", "file", "--min-tissue", "0.1"]
    assert pathology("tile", "--slides", cohort, "--out", tiles, *size)[0] == 0
    assert pathology("pack", "--slides", cohort, "--tiles", tiles, "--out", shards)[0] == 0
    table = read_slide_manifest(cohort)
    for name in table["slide_id"]:
        packed = Shards.load(shards / f"{name}.parquet")
        assert packed.passed_through == len(packed.shard) > 10
    direct = SlideTiles(table, tiles, ["normal", "tumour"])
    dataset = ShardTiles(table, shards, ["normal", "tumour"])
    assert len(direct) == len(dataset)
    for i in range(0, len(direct), 7):
        assert torch.equal(direct[i]["image"], dataset[i]["image"])


def test_the_folder_of_the_tile_tables_is_not_overwritten(refused, arguments, cohort_tiles):
    before = read_all(cohort_tiles)
    arguments[6] = cohort_tiles
    assert "not a table of packed tiles" in refused(*arguments)
    assert read_all(cohort_tiles) == before


def test_packing_again_does_nothing(pathology, arguments, tmp_path):
    pathology(*arguments)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    code, said, _ = pathology(*arguments)
    assert code == 0
    assert said.count("packed before with the same settings") == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()} == before


def test_what_is_missing_is_packed_again(pathology, arguments, tmp_path):
    pathology(*arguments)
    whole = read_all(tmp_path / "shards")
    for path in [*(tmp_path / "shards").glob("val_*"), *(tmp_path / "shards").glob("*.parquet")]:
        path.unlink(missing_ok=True)
    assert pathology(*arguments)[0] == 0
    assert read_all(tmp_path / "shards") == whole


def test_what_a_killed_process_left_is_removed(pathology, arguments, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    table = shards / "val_000.parquet"
    left = [
        draft_path(shards / f"{shard_name('val_000')}-00003.tar", killed.pid),
        draft_path(table, killed.pid),
    ]
    others = [
        draft_path(shards / "other-00000.tar", killed.pid),
        draft_path(table, os.getppid()),
    ]
    for draft in left + others:
        draft.touch()
    assert pathology(*arguments)[0] == 0
    assert set(shards.glob(".*")) == set(others)


def test_other_settings_are_refused(pathology, refused, arguments):
    pathology(*arguments)
    assert "packed with quality None, wanted 80" in refused(*arguments, "--quality", "80")


def test_tiles_labelled_anew_are_refused(pathology, refused, arguments, cohort_tiles, tmp_path):
    pathology(*arguments)
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in cohort_tiles.glob("*.parquet"):
        grid = TileGrid.load(path)
        grid.with_columns(label=grid.columns["label"][::-1]).save(changed / path.name)
    arguments[4] = changed
    assert "places_and_labels" in refused(*arguments)


def test_a_slide_that_fails_is_listed(pathology, arguments, cohort_tiles, tmp_path):
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for name in ("train_000", "test_000"):
        (tiles / f"{name}.parquet").write_bytes((cohort_tiles / f"{name}.parquet").read_bytes())
    arguments[4] = tiles
    code, said, _ = pathology(*arguments, "--keep-going")
    assert code == 3
    assert "val_000.parquet: no tile table for slide 'val_000'" in said
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 2


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--quality", "101", "quality must be in 1 to 100"), ("--tiles-per-shard", "0", "at least 1")],
)
def test_absurd_settings_are_refused(refused, arguments, option, value, said):
    assert said in refused(*arguments, option, value)


def test_a_model_is_trained_and_measured_on_shards_alone(
    pathology, refused, arguments, cohort, tmp_path
):
    assert pathology(*arguments)[0] == 0
    # The manifest on another machine: no slide file is there.
    manifest = tmp_path / "slides.csv"
    pd.read_csv(cohort).drop(columns="regions").to_csv(manifest, index=False)
    run = tmp_path / "run"
    train = [
        "train", "--out", run, "--model.model", "bcos_resnet18", "--trainer.max_epochs", "1",
        "--trainer.limit_train_batches", "2", "--trainer.log_every_n_steps", "1",
        "--data.manifest", manifest, "--data.shards", tmp_path / "shards",
        "--data.classes", "[normal, tumour]", "--data.batch_size", "8", "--data.num_workers", "0",
        "--data.balance", "class+slide", "--trainer.accelerator", "cpu",
    ]  # fmt: skip
    assert pathology(*train)[0] == 0
    code, said, _ = pathology("evaluate", "--run", run, "--split", "val", "--device", "cpu")
    assert code == 0
    tiles = Shards.load(tmp_path / "shards" / "val_000.parquet").columns["label"]
    assert f"{(tiles != '').sum()} tiles of split val" in said
    for path in (tmp_path / "shards").glob("*.parquet"):
        path.unlink()
    assert "pathology pack" in refused("evaluate", "--run", run, "--split", "test")
