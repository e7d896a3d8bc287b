"""Features through the command line: exact, resumable, shared among jobs, never mixed."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml

from pathology.cli.feature_slide import Extractor
from pathology.data.features import FeatureFolder, read_features, read_kind
from pathology.data.grids import grid_path, load_grid, open_tiled
from pathology.data.manifest import read_slide_manifest
from pathology.errors import StampMismatchError
from pathology.runs.encoder_choice import EncoderChoice
from tests.cli.made_slides import write_slide, write_slides

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
VIT = ["--encoder", "vit_tiny_patch16_224", "--encoder-args", str(SMALL)]
RANDOM = [*VIT, "--encoder-seed", "3", "--device", "cpu"]
CONFIGS = Path(__file__).parents[2] / "configs" / "features"
CUT = ["--size-px", "32", "--tile-mpp", "2", "--min-tissue", "0.1"]

MINE = """
import os, signal, torch
from torch import nn

class Mean(nn.Module):
    batches = 0
    def forward(self, images):
        self.batches += 1
        if os.environ.get("DIE_AT") == str(self.batches):
            os.kill(os.getpid(), signal.SIGKILL)
        return images.mean((2, 3)) * self.scale

class Colours:
    transform = staticmethod(lambda tiles: tiles.float())
    name, dims = "mean colours", 3
    def __init__(self, scale=1.0):
        self.module = Mean()
        self.module.register_buffer("scale", torch.tensor(scale))

def large():
    return Colours(1000.0)

def no_number():
    return Colours(float("nan"))
"""


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three small slides in a folder, and the folder of their tiles."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("features")
    write_slides(folder / "slides", 3)
    arguments = ["tile", "--slides", folder / "slides", "--out", folder / "tiles", *CUT]
    assert main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture
def arguments(slides, tmp_path):
    """Everything but the encoder."""
    return [
        "features", "--slides", slides / "slides", "--tiles", slides / "tiles",
        "--out", tmp_path / "out",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(slides):
    """Features of a random network in float32."""
    from pathology.cli import main

    arguments = [
        "features", "--slides", slides / "slides", "--tiles", slides / "tiles",
        "--out", slides / "made", *RANDOM, "--batch-size", "17",
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    return slides / "made"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Encoders of the user's where they stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)


def read_all(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}


def rows_of(slides):
    return [
        {"slide_id": path.stem, "path": str(path), "mpp": None}
        for path in sorted((slides / "slides").iterdir())
    ]


# --- what is written


def test_features_are_those_of_tiles_read_one_by_one(slides, made):
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL).double().eval()
    config = model.pretrained_cfg
    for row in rows_of(slides):
        grid = load_grid(grid_path(slides / "tiles", row), row)
        with open_tiled(row, grid) as slide:
            tiles = np.stack([slide.read(tile.box, mpp=2.0) for tile in grid]) / 255
        images = torch.from_numpy((tiles - config["mean"]) / config["std"]).permute(0, 3, 1, 2)
        with torch.no_grad():
            tokens = model.forward_features(images)
            wanted = model.forward_head(tokens, pre_logits=True).numpy()
        found = read_features(made / f"{row['slide_id']}.h5")
        # float32 against float64, through two blocks.
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found.features, wanted, rtol=0, atol=1e-5 * scale)
        np.testing.assert_array_equal(found.boxes, grid.boxes())
        assert found.stamp.slide == grid.source.stamp


def test_a_folder_says_what_all_of_it_is(slides, made):
    folder = FeatureFolder(made)
    assert folder.slide_ids == [row["slide_id"] for row in rows_of(slides)]
    assert folder.kind == read_kind(made)
    kind = yaml.safe_load((made / "features.yaml").read_text())
    assert kind["encoder"].startswith("vit_tiny_patch16_224, depth=2, embed_dim=24")
    assert kind["encoder"].endswith("random weights of seed 3")
    assert (kind["dims"], kind["precision"], kind["tiles"]["mpp"]) == (24, "fp32", 2.0)
    with h5py.File(next(made.glob("*.h5"))) as file:
        assert "batches of 17" in file.attrs["made"]


def test_again_does_nothing(pathology, slides, made):
    before = {path: path.stat().st_mtime_ns for path in made.glob("*.[hy]*")}
    assert len(before) == 4
    code, said, _ = pathology(
        "features", "--slides", slides / "slides", "--tiles", slides / "tiles", "--out", made,
        *RANDOM,
    )  # fmt: skip
    assert (code, said.count("made before with the same settings")) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_parts_share_the_slides_and_write_the_same_bytes(pathology, arguments, made, tmp_path):
    found = []
    for part in (1, 2):
        words = [*arguments, *RANDOM, "--batch-size", "17", "--part", f"{part}/2"]
        assert pathology(*words)[0] == 0
        found.append(set(read_all(tmp_path / "out")))
    assert [len(names) for names in found] == [2, 3]
    assert read_all(tmp_path / "out") == read_all(made)
    code, said, _ = pathology(*arguments, *RANDOM, "--part", "4/5")
    assert (code, said) == (0, "no slide falls to part 4/5\n")


def test_what_a_worker_is_sent_writes_the_same_bytes(slides, made, tmp_path):
    """It loads the encoder itself, and refuses to go on with another than the run began with."""
    choice = EncoderChoice("vit_tiny_patch16_224", seed=3, arguments=SMALL)
    kind = read_kind(made)
    work = Extractor(
        choice, slides / "tiles", tmp_path, kind.tiles, device="cpu", batch_size=17, kind=kind
    )
    assert work.loaded.kind == kind
    sent = pickle.loads(pickle.dumps(work))
    assert "loaded" not in vars(sent)
    row = rows_of(slides)[1]
    sent(row)
    name = f"{row['slide_id']}.h5"
    assert (tmp_path / name).read_bytes() == (made / name).read_bytes()
    with pytest.raises(StampMismatchError, match="random weights of seed 4, when the run began"):
        replace(work, choice=replace(choice, seed=4)).loaded  # noqa: B018


@pytest.mark.usefixtures("mine")
def test_a_killed_run_leaves_no_half_file_and_goes_on(pathology, arguments, tmp_path):
    command = [*map(str, arguments), "--encoder", "mine:Colours", "--device", "cpu"]
    command += ["--batch-size", "16"]
    process = subprocess.run(
        [sys.executable, "-m", "pathology.cli", *command],
        env=os.environ | {"DIE_AT": "8", "OMP_NUM_THREADS": "1"},  # in the second slide
        capture_output=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    out = tmp_path / "out"
    assert len(FeatureFolder(out).slide_ids) == 1
    assert len(list(out.glob(".*.part"))) == 1
    code, said, _ = pathology(*command)
    assert (code, said.count("made before")) == (0, 1)
    assert len(FeatureFolder(out).slide_ids) == 3
    assert [path.name for path in out.glob(".*")] == [".cohort"]
    assert pathology(*arguments[:-1], tmp_path / "at once", *command[7:])[0] == 0
    assert read_all(out) == read_all(tmp_path / "at once")


def test_bf16_is_close_to_float32(pathology, arguments, made, tmp_path):
    """Products keep 8 bits, 0.4 % each; errors of two blocks add up."""
    half = ["--precision", "bf16", "--stored", "float16"]
    assert pathology(*arguments, *RANDOM, *half, "--part", "1/3")[0] == 0
    (path,) = (tmp_path / "out").glob("*.h5")
    exact, rounded = read_features(made / path.name), read_features(path)
    error = np.abs(exact.features - rounded.features).max() / np.abs(exact.features).max()
    assert 1e-4 < error < 3e-2
    assert (rounded.stamp.kind.precision, rounded.stamp.kind.stored) == ("bf16", "float16")


@pytest.mark.usefixtures("mine")
def test_tiles_are_normalised_as_elsewhere(pathology, slides, tmp_path, refused):
    from pathology.stain import StainFolder

    stains = tmp_path / "stains"
    slide = slides / "slides" / "slide 001 ü.tif"
    cut = ["--slides", slide, "--tiles", slides / "tiles"]
    assert pathology("stain", *cut, "--out", stains, "--method", "reinhard", "--target",
                     slide.stem)[0] == 0  # fmt: skip
    # Normalised to another slide's colours: here, to its own colours made darker.
    darker = yaml.safe_load((stains / "target.json").read_text())
    darker["means"][0] -= 5
    (stains / "target.json").write_text(__import__("json").dumps(darker))
    features = ["features", *cut, "--encoder", "mine:Colours", "--device", "cpu"]
    assert pathology(*features, "--out", tmp_path / "out", "--stains", stains)[0] == 0
    found = read_features(tmp_path / "out" / f"{slide.stem}.h5")
    row = rows_of(slides)[1]
    grid = load_grid(grid_path(slides / "tiles", row), row)
    folder = StainFolder(stains)
    profile = folder.profile(slide.stem, grid.source.stamp, "stored")
    with open_tiled(row, grid) as opened:
        tiles = np.stack([opened.read(tile.box, mpp=2.0) for tile in grid])
    light = folder.normaliser()(torch.from_numpy(tiles).permute(0, 3, 1, 2), profile)
    # Means of 1,024 whole numbers below 256, in float32.
    np.testing.assert_allclose(found.features, light.double().mean((2, 3)), rtol=1e-5)
    assert np.abs(found.features - tiles.mean((1, 2))).max() > 1
    assert found.stamp.kind.stain == folder.target.digest()
    assert found.stamp.profile == profile.digest()
    # Without, they are other features; so they are with another profile.
    line = refused(*features, "--out", tmp_path / "out")
    assert f"stain target {folder.target.digest()}, wanted none" in line


# --- encoders


@pytest.fixture(scope="module")
def run(cohort, cohort_tiles, tmp_path_factory):
    """A run of a few steps."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("runs") / "vit"
    arguments = [
        "train", "--out", folder, "--model.model", "bcos_vit_tiny_patch16_224",
        "--model.model_args", "{img_size: 64, depth: 2}", "--data.manifest", cohort,
        "--data.tiles", cohort_tiles, "--data.classes", "[normal, tumour]",
        "--data.batch_size", "16", "--data.num_workers", "0", "--trainer.max_epochs", "1",
        "--trainer.limit_train_batches", "2", "--trainer.log_every_n_steps", "1",
        "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    return folder


def test_a_run_is_an_encoder_whose_classifier_gives_the_runs_logits(
    pathology, run, cohort, cohort_tiles, tmp_path
):
    from pathology.tasks.checkpoint import load_task

    slide = ["--slides", cohort.parent / "test_000.tif", "--tiles", cohort_tiles]
    arguments = ["features", *slide, "--encoder", run, "--device", "cpu", "--out", tmp_path]
    assert pathology(*arguments)[0] == 0
    found = read_features(tmp_path / "test_000.h5")
    task, digest = load_task(run)
    kind = found.stamp.kind
    assert (kind.weights, kind.encoding, kind.dims) == (digest, "complement", 192)
    row = read_slide_manifest(cohort).query("slide_id == 'test_000'").to_dict("records")[0]
    grid = load_grid(grid_path(cohort_tiles, row), row)
    chosen = np.arange(0, len(grid), 40)
    with open_tiled(row, grid) as opened:
        tiles = np.stack([opened.read(grid[int(i)].box, mpp=0.5) for i in chosen])
    with torch.no_grad():
        images = task.encoding(torch.from_numpy(tiles).permute(0, 3, 1, 2))
        wanted = task.model(images)
        model = task.model
        got = model.logits(model.head(torch.from_numpy(found.features[chosen])))
    # The same float32 arithmetic in batches of other sizes.
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_run_refuses_other_tiles_and_weights_beside_its_own(refused, arguments, run):
    line = refused(*arguments, "--encoder", run, "--device", "cpu")
    assert "tiles of 32 px at 2.0 um/px" in line
    assert "trained on 64 px at 0.5 um/px" in line
    line = refused(*arguments, "--encoder", run, "--encoder-seed", "0")
    assert "is a run, which has its weights and tile size itself" in line


def test_a_run_that_is_not_there_is_said(refused, arguments, tmp_path):
    assert "no checkpoint" in refused(*arguments, "--encoder", tmp_path / "run")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("encoder", "stored", "message"),
    [
        ("mine:large", "float16", "is too large for float16; use --stored float32"),
        ("mine:no_number", "float32", "a feature is NaN in fp32"),
    ],
)
def test_what_is_no_number_is_named_by_slide_and_tile(
    refused, arguments, tmp_path, encoder, stored, message
):
    line = refused(*arguments, "--encoder", encoder, "--stored", stored, "--device", "cpu")
    assert "slide 'slide 000 ü', tile " in line
    assert message in line
    assert list((tmp_path / "out").glob("*.h5")) == []


# --- nothing is mixed, nothing is stale


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([*VIT, "--encoder-seed", "4"], "random weights of seed 4"),
        ([*RANDOM, "--precision", "bf16"], "precision fp32, wanted bf16"),
        ([*RANDOM, "--stored", "float16"], "numbers stored as float32, wanted float16"),
    ],
)
def test_other_features_do_not_come_into_the_folder(refused, slides, made, more, message):
    before = read_all(made)
    line = refused(
        "features", "--slides", slides / "slides", "--tiles", slides / "tiles", "--out", made, *more
    )
    assert "features.yaml" in line
    assert message in line
    assert read_all(made) == before


@pytest.fixture
def own(slides, made, tmp_path):
    """A copy of slides, tiles and features, and the arguments for it."""
    for name in ("slides", "tiles", "made"):
        shutil.copytree(slides / name, tmp_path / name)
    return tmp_path, [
        "features", "--slides", tmp_path / "slides", "--tiles", tmp_path / "tiles",
        "--out", tmp_path / "made", *RANDOM,
    ]  # fmt: skip


def test_features_of_a_slide_that_was_scanned_again_are_refused(pathology, refused, own):
    folder, arguments = own
    write_slide(folder / "slides" / "slide 001 ü.tif", seed=8)
    assert "tile the slide anew" in refused(*arguments)
    (folder / "tiles" / "slide 001 ü.parquet").unlink()
    tile = ["tile", "--slides", folder / "slides", "--out", folder / "tiles", *CUT]
    assert pathology(*tile, "--overwrite")[0] == 0
    line = refused(*arguments)
    assert "slide 001 ü.h5: features of slide stamp" in line
    (folder / "made" / "slide 001 ü.h5").unlink()
    code, said, _ = pathology(*arguments)
    assert (code, said.count("made before")) == (0, 2)


def test_what_another_version_wrote_otherwise_is_not_passed_by(
    pathology, refused, own, monkeypatch
):
    _, arguments = own
    assert pathology(*arguments)[0] == 0
    monkeypatch.setattr("pathology.data.features.FORMAT", 2)
    assert "format 1, wanted 2" in refused(*arguments)


def test_a_manifest_whose_tiles_are_of_two_kinds_is_refused(pathology, refused, own):
    folder, arguments = own
    slide = folder / "slides" / "slide 002 ü.tif"
    other = ["--size-px", "16", "--tile-mpp", "2", "--min-tissue", "0.1"]
    assert pathology("tile", "--slides", slide, "--out", folder / "other", *other)[0] == 0
    name = "slide 002 ü.parquet"
    shutil.copy(folder / "other" / name, folder / "tiles" / name)
    line = refused(*arguments)
    assert name in line
    assert "tile all slides with one specification" in line


def test_a_folder_that_lost_what_it_is_still_refuses_by_each_file(refused, own):
    folder, arguments = own
    (folder / "made" / "features.yaml").unlink()
    line = refused(*arguments, "--precision", "bf16")
    assert "slide 000 ü.h5: features made with precision fp32, wanted bf16" in line


def test_slides_that_fail_are_listed_by_part(pathology, own):
    folder, arguments = own
    shutil.rmtree(folder / "made")
    (folder / "tiles" / "slide 002 ü.parquet").unlink()
    (folder / "slides" / "slide 000 ü.tif").write_bytes(b"no slide")
    code, said, _ = pathology(*arguments, "--keep-going", "--part", "1/2")
    assert (code, "2 of 2 slides failed" in said) == (3, True)
    listed = pd.read_csv(folder / "made" / "failures-1-of-2.csv")
    assert list(listed["slide_id"]) == ["slide 000 ü", "slide 002 ü"]
    assert list(listed["error"]) == ["StampMismatchError", "ManifestError"]
    assert pathology(*arguments, "--keep-going", "--part", "2/2")[0] == 0
    assert [path.name for path in (folder / "made").glob("failures*")] == ["failures-1-of-2.csv"]


# --- ugly cases


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([*RANDOM, "--part", "0/3"], "--part must be like 3/16"),
        ([*RANDOM, "--part", "4/3"], "--part must be like 3/16"),
        ([*RANDOM, "--part", "third"], "--part must be like 3/16"),
        ([*RANDOM, "--batch-size", "0"], "--batch-size must be at least 1"),
        ([*RANDOM, "--readers", "0"], "--readers must be at least 1"),
        ([*RANDOM, "--workers", "-1"], "workers must be at least 0"),
        ([*RANDOM[:-1], "gpu"], "device 'gpu' cannot be used"),
        ([*RANDOM, "--stains", "nowhere"], "no target of stain normalisation"),
        (VIT, "say where its weights are from"),
        ([*VIT, "--weights", "nowhere.pth"], "nowhere.pth: cannot be read"),
        (["--encoder", "resnet81", "--encoder-seed", "0"], "no model is called 'resnet81'"),
        (["--encoder", "resnet18", "--encoder-seed", "0"], "takes 224 px; tile the slides again"),
        (["--encoder", "nobodys:encoder"], "No module named 'nobodys'"),
        ([*RANDOM, "--tiles", "nowhere"], "no tile table of these slides"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(refused, arguments, more, message):
    assert message in refused(*arguments, *more)
    assert not arguments[-1].exists()


def test_features_do_not_go_among_the_tiles(refused, arguments, slides):
    line = refused(*arguments[:-1], slides / "tiles", *RANDOM)
    assert "is the folder of the tiles" in line


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_understood(refused, tmp_path, path):
    assert path.read_text().startswith("# ")
    # Parsed as a whole; then the slides are looked for.
    slides = tmp_path / "nowhere.csv"
    assert "nowhere.csv" in refused("features", "--config", path, "--slides", slides)


def test_a_config_says_the_same(pathology, arguments, made, tmp_path):
    config = tmp_path / "features.yaml"
    values = {
        "slides": str(arguments[2]), "tiles": str(arguments[4]), "out": str(arguments[6]),
        "encoder": "vit_tiny_patch16_224", "encoder_args": SMALL, "encoder_seed": 3,
        "device": "cpu", "batch_size": 17, "part": "3/3",
    }  # fmt: skip
    config.write_text(yaml.safe_dump(values))
    assert pathology("features", "--config", config)[0] == 0
    (path,) = (tmp_path / "out").glob("*.h5")
    assert path.read_bytes() == (made / path.name).read_bytes()
