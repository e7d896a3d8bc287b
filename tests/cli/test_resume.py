"""Runs that are killed, interrupted or damaged go on as if nothing had been, to the last bit."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from pathology.cli.run_checkpoints import BestEpoch
from pathology.cli.run_record import write_metrics
from pathology.outputs import draft_path
from pathology.tasks.checkpoint import Run, load_task

# All that draws or remembers something: dropout, stochastic depth, mixing, augmentation, averaged
# weights, a schedule, and gradients accumulated over 2 batches. 29 batches make 15 steps an epoch,
# the last one of a single batch.
SETTINGS = {
    "seed_everything": 3,
    "model": {
        "model": "bcos_vit_tiny_patch16_224",
        "model_args": {
            "img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 2,
            "drop_path_rate": 0.2, "drop_rate": 0.1,
        },
        "mixup": 0.2,
        "cutmix": 1.0,
        "ema_decay": 0.9,
    },
    "data": {"classes": ["a", "b"], "batch_size": 2, "num_workers": 0, "augment": "full"},
    "trainer": {
        "accelerator": "cpu", "max_epochs": 2, "accumulate_grad_batches": 2,
        "log_every_n_steps": 1, "enable_progress_bar": False,
    },
}  # fmt: skip
ALWAYS = ("--checkpoint-minutes", "0.000001")  # a checkpoint at every step


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config of training on 58 images, too alike to be told apart at once."""
    folder = tmp_path_factory.mktemp("images")
    rng, rows = np.random.default_rng(0), []
    for i in range(78):
        pixels = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8)
        pixels[..., i % 2] += 8
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append((f"{i}.png", "ab"[i % 2], "train" if i < 58 else "val"))
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    table.to_csv(folder / "tiles.csv", index=False)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {
        "data": SETTINGS["data"] | {"manifest": str(folder / "tiles.csv")}
    }))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that nothing happens to."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train(config, run) == 0
    return run


def train(config, run, *more):
    from pathology.cli import main

    return main(["train", "--config", str(config), "--out", str(run), *map(str, more)])


def curves(run):
    return (run / "logs" / "metrics.csv").read_text()


def steps(run):
    path = run / "logs" / "metrics.csv"
    return path.read_text().count("\n") if path.is_file() else 0


def stored(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same(run, whole):
    """Every figure and every weight, and what is resumed from."""
    assert curves(run) == curves(whole)
    for name in ("last", "best"):
        found, expected = stored(run, name), stored(whole, name)
        assert found["global_step"] == expected["global_step"]
        for state in ("state_dict", "current_model_state"):
            for key, value in expected[state].items():
                assert torch.equal(found[state][key], value), key
    assert (run / "metrics.json").read_text() == (whole / "metrics.json").read_text()


def test_curves_have_every_step_once_and_the_means_of_epochs(whole):
    table = pd.read_csv(whole / "logs" / "metrics.csv")
    losses = table["train_loss_step"].dropna()
    assert table.loc[losses.index, "step"].tolist() == list(range(30))
    # The epoch's last step is one batch of 2 images, the others are two.
    shares = np.array([4.0] * 14 + [2.0])
    for epoch, mean in zip((0, 1), table["train_loss"].dropna(), strict=True):
        of_epoch = losses[table.loc[losses.index, "epoch"] == epoch]
        # float32 losses, summed in float64
        assert mean == pytest.approx(np.average(of_epoch, weights=shares), rel=1e-6)
    rates = table["lr"].dropna().tolist()
    assert rates[:15] == sorted(rates[:15])
    assert rates[15:] == sorted(rates[15:], reverse=True)
    assert table["val_auroc"].count() == 2


def test_a_run_killed_within_an_epoch_comes_to_the_same(config, whole, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pathology.cli", "train", "--config", str(config)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--out", str(run), *ALWAYS], env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
    deadline = time.monotonic() + 240
    while steps(run) < 21:  # 15 of an epoch, 2 more rows, a header: in the second epoch
        assert process.poll() is None, "training ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Nobody is told of products and of what is deprecated within Lightning.
    assert (tmp_path / "said").read_text().split("\n") == ["Seed set to 3", ""]
    assert not (run / "finished").exists()
    # It may have been killed while the next state was written: then the one before is there.
    state = "last" if Run(run).last.is_file() else "previous"
    assert 15 <= stored(run, state)["global_step"] < 30
    assert train(config, run) == 0
    assert_same(run, whole)
    sessions = json.loads((run / "environment.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert sessions[1]["from_step"] >= 15
    assert sessions[1]["packages"]["torch"] == torch.__version__.partition("+")[0]


@pytest.fixture
def interrupted(monkeypatch):
    """Has a signal arrive in the middle of a step; of two batches, in the first."""
    from pathology.tasks.tile_classification import TileClassification

    inner = TileClassification.training_step

    def set_up(number, at_batch, times=1):
        def step(self, batch):
            if self.trainer.fit_loop.total_batch_idx == at_batch:
                for _ in range(times):
                    os.kill(os.getpid(), number)
            return inner(self, batch)

        monkeypatch.setattr(TileClassification, "training_step", step)

    return set_up


@pytest.mark.parametrize(
    ("name", "at_batch", "at_step"),
    [("SIGTERM", 8, 5), ("SIGINT", 28, 15)],  # within an epoch, and in its last batch
)
def test_a_signal_ends_training_after_the_step_and_it_goes_on(
    config, whole, tmp_path, interrupted, capsys, name, at_batch, at_step
):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    number = getattr(signal, name)
    interrupted(number, at_batch)
    before_move, run = tmp_path / "first", tmp_path / "run"
    assert train(config, before_move, *ALWAYS) == 128 + number
    assert f"stopped by {name} in epoch 0, after step {at_step}, state saved" in (
        capsys.readouterr().out
    )
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert stored(before_move)["global_step"] == at_step
    before_move.rename(run)
    interrupted(number, -1)
    assert train(config, run) == 0
    assert_same(run, whole)


def test_what_was_best_is_known_where_the_folder_was_moved(tmp_path):
    state = {"best_model_score": torch.tensor(0.75), "loss": 0.5}
    best = BestEpoch(Run(tmp_path), "val_auroc")
    best.load_state_dict(state)
    assert best.state_dict() == state
    assert best.best_model_path == str(Run(tmp_path.resolve()).best)
    strategy = SimpleNamespace(reduce_boolean_decision=bool)
    trainer = SimpleNamespace(strategy=strategy, callback_metrics={"val_loss": 0.5})
    assert not best.check_monitor_top_k(trainer, torch.tensor(0.75))
    assert best.check_monitor_top_k(trainer, torch.tensor(0.76))


def test_ctrl_c_twice_stops_at_once(config, tmp_path, interrupted, capsys):
    interrupted(signal.SIGINT, 8, times=2)
    assert train(config, tmp_path) == 130
    assert "run it again to continue" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    config, whole, tmp_path, interrupted, capsys
):
    interrupted(signal.SIGTERM, 8)
    train(config, tmp_path, *ALWAYS)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:10_000])
    # What a kill leaves behind while it writes.
    draft_path(last, 999_999_999).write_bytes(b"half")
    with (tmp_path / "logs" / "metrics.csv").open("a") as file:
        file.write("5,0,0.00")
    interrupted(signal.SIGTERM, -1)
    capsys.readouterr()
    assert train(config, tmp_path) == 0
    said = capsys.readouterr().out
    assert "last.ckpt: not a usable checkpoint" in said
    assert "resuming from previous.ckpt, step 4" in said
    assert_same(tmp_path, whole)
    assert not list(last.parent.glob(".*.part"))


def test_a_run_that_was_at_its_end_does_not_begin_again(config, tmp_path, capsys):
    words = ["--trainer.max_epochs", "9", "--patience", "1", "--model.lr", "1e-12"]
    words += ["--trainer.limit_train_batches", "4"]
    assert train(config, tmp_path, *words) == 0
    before = curves(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] == 2
    (tmp_path / "finished").unlink()
    assert train(config, tmp_path, *words) == 0
    assert "resuming" in capsys.readouterr().out
    assert curves(tmp_path) == before
    assert yaml.safe_load((tmp_path / "finished").read_text())["epochs"] == 2


def test_a_folder_in_use_is_refused(config, tmp_path, capsys):
    if os.name == "nt":
        pytest.skip("no such locks")
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX);"
        " print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path / ".lock"], **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        assert train(config, tmp_path) == 2
        other.stdin.close()
    assert "another process is training in it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_full_disk_is_one_line_and_it_goes_on(config, whole, tmp_path, capsys):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (50_000, before[1])
    )  # of a file; checkpoints have more
    try:
        assert train(config, tmp_path) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "checkpoints").iterdir())
    assert train(config, tmp_path) == 0
    assert_same(tmp_path, whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.precision", "64-true"], "trainer.precision must be one of 32-true,"),
        (["--model.lrr", "1"], "unrecognized arguments: --model.lrr 1 (pathology train --help"),
        (["--model.lr", "abc"], "key \"model.lr\": Expected a <class 'float'>. Got value: abc"),
        (["--config", "none.yaml"], "File does not exist"),
        (["--checkpoint-minutes", "-1"], "--checkpoint-minutes must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_had_are_refused(config, tmp_path, capsys, words, said):
    assert train(config, tmp_path / "run", *words) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x != "Seed set to 3"]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scores", "epoch", "steps"),
    [
        ("0.5 0.9 0.7 0.9", 0, 4),  # two validations an epoch: the second one, the first of equals
        ("nan 0.2 0.1 0.3", 1, 8),  # what cannot be measured is worse than anything
    ],
)
def test_the_best_figures_are_those_of_the_checkpoint(tmp_path, scores, epoch, steps):
    run = Run(tmp_path)
    run.logs.mkdir()
    lines = [f"{2 * i + 1},{i // 2},{score},{i}.0" for i, score in enumerate(scores.split())]
    (run.logs / "metrics.csv").write_text("\n".join(["step,epoch,val_auroc,val_loss", *lines, ""]))
    trainer = SimpleNamespace(current_epoch=2, global_step=8)
    best = write_metrics(run, "val_auroc", trainer)["best"]
    assert (best["epoch"], best["steps"]) == (epoch, steps)
    assert best["val_loss"] == steps / 2 - 1


def test_settings_that_could_not_be_leave_the_folder_free(config, tmp_path, capsys):
    run = tmp_path / "run"
    short = ("--trainer.max_epochs", "1")
    assert train(config, run, *short, "--model.freeze", "blocks.99") == 2
    assert train(config, run, *short) == 0
    assert Run(run).settings()["model"]["freeze"] is None
    assert train(config, run, *short, "--model.freeze", "blocks.0") == 2
    assert "model.freeze" in capsys.readouterr().err


def test_when_none_can_be_read_it_is_said_so(config, whole, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert train(config, tmp_path) == 2
    assert "last.ckpt: not a usable checkpoint" in capsys.readouterr().err


def test_a_run_is_taken_up_with_other_ways_to_save_read_and_show(config, whole, capsys):
    more = ["--checkpoint_minutes", "3", "--trainer.enable_progress_bar", "true"]
    assert train(config, whole, *more, "--data.num_workers", "1") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert train(config, whole, "--trainer.accumulate_grad_batches", "1") == 2
    assert "trainer.accumulate_grad_batches=2" in capsys.readouterr().err


def test_the_folder_says_what_the_run_is(config, whole):
    settings = yaml.safe_load((whole / "config.yaml").read_text())
    assert settings["task"] == "tiles"
    assert settings["seed_everything"] == 3
    origin = json.loads((whole / "made_from.json").read_text())
    assert origin["size_px"] == 32
    assert len(origin["sha256"]["manifest"]) == 64
    metrics = json.loads((whole / "metrics.json").read_text())
    table = pd.read_csv(whole / "logs" / "metrics.csv")
    scores = table.dropna(subset=["val_auroc"])
    best = scores.loc[scores["val_auroc"].idxmax()]
    assert metrics["best"]["epoch"] == best["epoch"]
    assert metrics["best"]["val_loss"] == best["val_loss"]
    assert (metrics["epochs"], metrics["steps"], metrics["last"]["steps"]) == (2, 30, 30)
    assert json.loads((whole / "environment.json").read_text())["sessions"][0]["processes"] == 1
    assert list((whole / "logs").glob("events.out.tfevents*"))


def test_weights_in_safetensors_are_a_task_by_themselves(whole, tmp_path):
    moved = tmp_path / "weights.safetensors"
    moved.write_bytes((whole / "checkpoints" / "best.safetensors").read_bytes())
    task, _ = load_task(moved)
    expected, _ = load_task(whole)
    tiles = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(task(tiles), expected(tiles))
    assert task.classes == ["a", "b"]
    # The averaged weights, as in the checkpoint.
    assert any(
        not torch.equal(value, stored(whole, "best")["current_model_state"][key])
        for key, value in task.state_dict().items()
    )


def test_a_logger_whose_package_is_missing_is_named(config, tmp_path, capsys):
    if importlib.util.find_spec("mlflow"):
        pytest.skip("mlflow is installed")
    words = ["--trainer.logger", "lightning.pytorch.loggers.MLFlowLogger"]
    assert train(config, tmp_path / "run", *words) == 2
    assert "pip install mlflow" in capsys.readouterr().err


def test_a_logger_of_the_config_comes_besides_those_of_every_run(config, tmp_path):
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path / "other"), "name": "", "version": ""},
    }
    more = ["--trainer.logger", json.dumps(logger), "--trainer.max_epochs", "1"]
    assert train(config, tmp_path / "run", *more) == 0
    other = pd.read_csv(tmp_path / "other" / "metrics.csv")
    ours = pd.read_csv(tmp_path / "run" / "logs" / "metrics.csv")
    assert other["train_loss_step"].dropna().tolist() == ours["train_loss_step"].dropna().tolist()


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], "tiles"),
        (["--task", "slides"], "slides"),
        (["--task=slides", "--config", "tiles.yaml"], "tiles"),
        (["--config", "slides.yaml", "--config=plain.yaml"], "slides"),
        (["--config", "none.yaml", "--task", "tiles"], "tiles"),
    ],
)
def test_the_last_to_name_a_task_chooses_it(tmp_path, monkeypatch, words, chosen):
    from pathology.cli.lightning_train import chosen_task

    monkeypatch.chdir(tmp_path)
    Path("tiles.yaml").write_text("task: tiles\n")
    Path("slides.yaml").write_text("# no model\ntask: slides\n")
    Path("plain.yaml").write_text("model: {lr: 1}\n")
    assert chosen_task(words) == chosen


def test_an_unknown_task_is_refused(config, tmp_path, capsys):
    assert train(config, tmp_path, "--task", "cells") == 2
    assert "task must be one of tiles, slides; got 'cells'" in capsys.readouterr().err
