"""Means over members and shifts, and nulls, through the command line."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pathology.explain.results.stored import load_explanation
from pathology.maps.ome_tiff import read_ome_tiff
from tests.cli.made_slides import write_slide

TILES = ["--size-px", "32", "--tile-mpp", "2.0", "--exclude", "none", "--min-tissue", "0.9"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A slide and its tiles."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("made")
    write_slide(folder / "s.tif", 0, side=192)
    slide = ["--slides", str(folder / "s.tif")]
    assert main(["tile", *slide, "--out", str(folder / "tiles"), *TILES]) == 0
    return folder


def write_run(folder, seed, classes=("A", "B"), raw=False):
    """A checkpoint of a tile model that was hardly trained, as `pathology train` writes them."""
    from pathology.tasks.tile_classification import TileClassification

    settings = {
        "model": "bcos_vit_tiny_patch16_224", "classes": list(classes),
        "model_args": {"img_size": 32, "depth": 1},
    }  # fmt: skip
    states = []
    for number in range(2):
        torch.manual_seed(100 * number + seed)
        states.append(TileClassification(**settings).state_dict())
    stored = {"state_dict": states[0], "hyper_parameters": settings}
    if raw:
        stored["current_model_state"] = states[1]
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"pytorch-lightning_version": "2.5.0", **stored}, path)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, the first with an average of its weights, and one of other classes."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "one", 0, raw=True)
    write_run(folder / "two", 1)
    write_run(folder / "other", 2, classes=("A", "C"))
    return folder


def explain(made, runs, out, *more):
    return [
        "explain", "--run", runs / "one", "--slides", made / "s.tif", "--tiles", made / "tiles",
        "--out", out, "--device", "cpu", *more,
    ]  # fmt: skip


def record_of(folder):
    return json.loads((folder / "explanation.json").read_text())


def layers_of(folder):
    return {
        path.name.removesuffix(".ome.tif"): read_ome_tiff(path)
        for path in (folder / "layers").glob("*.ome.tif")
    }


@pytest.fixture(scope="module")
def explained(made, runs, tmp_path_factory):
    """Two runs on two shifts, held against two nulls."""
    from pathology.cli import main

    out = tmp_path_factory.mktemp("explained")
    arguments = explain(made, runs, out, *asked(runs))
    assert main([str(each) for each in arguments]) == 0
    return out


def asked(runs, **changed):
    options = {"members": f"[{runs / 'two'}]", "jitter": 2, "null": 2, "target": "B"} | changed
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def test_the_heatmap_is_the_mean_and_every_file_says_of_what(explained):
    folder = explained / "s" / "B"
    record = record_of(folder)
    told, ledger = record["layers"], record["ledger"]
    members = told["members"]
    assert len(members) == 4
    assert members[0]["name"] == "one"
    assert members[3]["name"].startswith("two, tiles moved by (-16, -16) px")
    assert ledger["is_closed"]
    for entry in ("score", "bias", "cut_off"):
        wanted = math.fsum(each["ledger"][entry] for each in members) / 4
        assert ledger[entry] == pytest.approx(wanted, abs=1e-12), entry
    heatmap, metadata = read_ome_tiff(folder / "heatmap.ome.tif")
    assert heatmap.sum() == pytest.approx(ledger["map_sum"], abs=1e-12)
    assert metadata["layers"] == told
    layers = layers_of(folder)
    assert set(layers) == {
        "spread", "agreement", "members", "null_mean", "null_spread", "null_z", "null_p",
    }  # fmt: skip
    for layer, said in layers.values():
        assert layer.values.shape == heatmap.values.shape
        assert layer.box == heatmap.box
        assert said["layers"]["null"]["nulls"][1]["seed"] == 1
        assert said["ledger"] == ledger
    assert np.nanmax(layers["members"][0].values) == 4
    stored = load_explanation(folder)
    assert "layers/spread" in stored.maps
    spread = stored.map("layers/spread").values
    assert np.array_equal(spread, layers["spread"][0].values, equal_nan=True)
    tiles = pd.read_parquet(folder / "tiles.parquet")
    assert sorted(tiles["member"].unique()) == [0, 1, 2, 3]
    report = (folder / "report.html").read_text()
    assert "2 runs: one, two on 2 shifts of the tiles" in report
    assert "2 models of random weights" in report


def test_members_are_the_runs_by_themselves(pathology, explained, made, runs, tmp_path):
    other = explain(made, runs, tmp_path / "two", "--target", "B")
    other[2] = runs / "two"
    assert pathology(*other)[0] == 0
    assert pathology(*explain(made, runs, tmp_path / "one", "--target", "B"))[0] == 0
    told = record_of(explained / "s" / "B")["layers"]
    for place, name in enumerate(("one", "two")):
        alone = record_of(tmp_path / name / "s" / "B")
        assert "layers" not in alone
        assert told["members"][place]["ledger"] == alone["ledger"]
    assert not (tmp_path / "one" / "s" / "B" / "layers").exists()


def test_explaining_again_skips_and_other_layers_are_refused(
    pathology, refused, explained, made, runs
):
    code, out, _ = pathology(*explain(made, runs, explained, *asked(runs)))
    assert (code, out.count("made before")) == (0, 1)
    for changed in ({"jitter": 3}, {"null": 0}, {"members": f"[{runs / 'one'}:raw]"}):
        line = refused(*explain(made, runs, explained, *asked(runs, **changed)))
        assert "layers" in line
    assert "layers" in refused(*explain(made, runs, explained, "--target", "B"))


def test_raw_weights_are_a_member_beside_their_average(pathology, made, runs, tmp_path):
    more = ["--members", f"{runs / 'one'}:raw"]
    code, out, err = pathology(*explain(made, runs, tmp_path, *more))
    assert code == 0, err
    record = record_of(tmp_path / "s" / "predicted")
    first, second = record["layers"]["members"]
    assert (first["name"], second["name"]) == ("one", "one:raw")
    assert first["score"] != second["score"]
    assert record["settings"]["layers"]["members"][0]["checkpoint"].endswith(":raw")
    assert record["target"] in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--members", "two:raw"], ["two", "ema_decay"]),
        (["--members", "other"], ["other has the classes A, C", "one has A, B"]),
        (["--members", "one"], ["same weights"]),
        (["--members", "nowhere"], ["nowhere"]),
        (["--jitter", "0"], ["--jitter", "at least 1"]),
        (["--jitter", "1100"], ["--jitter", "tiles 32 px apart have no 1100 shifts"]),
        (["--null", "1"], ["--null", "at least 2"]),
    ],
)
def test_what_cannot_be_averaged_or_held_against_is_refused(
    refused, made, runs, tmp_path, monkeypatch, more, words
):
    monkeypatch.chdir(runs)
    line = refused(*explain(made, runs, tmp_path, *more))
    assert all(word in line for word in words), line
    assert not list(tmp_path.glob("[!.]*/*"))
