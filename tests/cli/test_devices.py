"""Training on two devices: real processes that talk to one another."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml

CLASSES = ["normal", "tumour"]


@pytest.fixture
def arguments(cohort, cohort_tiles, tmp_path):
    return [
        "train", "--out", str(tmp_path / "run"), "--model.model", "test_resnet",
        "--model.loss", "ce", "--data.manifest", str(cohort), "--data.tiles", str(cohort_tiles),
        "--data.classes", "[normal, tumour]", "--data.batch_size", "32", "--data.num_workers", "0",
        "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2",
        "--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0",
        "--trainer.accelerator", "cpu", "--trainer.devices", "2",
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip


def command(*words):
    """In a process of its own, which the other devices' processes are made after."""
    return subprocess.run(
        [sys.executable, "-m", "pathology.cli", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_two_devices_train_and_report_for_both(arguments, tmp_path):
    done = command(*arguments, "--trainer.strategy", "ddp")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    figures = pd.read_csv(run / "logs" / "metrics.csv")
    best = yaml.safe_load((run / "finished").read_text())
    assert best["epochs"] == 1
    assert best["val_auroc"] == pytest.approx(figures["val_auroc"].dropna().item())
    # The loss of all tiles, not of those that the first device saw.
    done = command("evaluate", "--run", run, "--split", "val", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(run / "evaluation" / "val.parquet")
    logits = torch.tensor(table[[f"logit_{name}" for name in CLASSES]].to_numpy())
    labels = torch.tensor([CLASSES.index(label) for label in table["label"]])
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    twice = losses[: len(losses) % 2]  # so that both have equally many
    wanted = torch.cat([losses, twice]).mean()
    assert figures["val_loss"].dropna().item() == pytest.approx(wanted.item(), rel=1e-5)
    assert losses[::2].mean().item() != pytest.approx(wanted.item(), rel=1e-4)


def test_processes_that_tell_nothing_back_are_refused(arguments, tmp_path):
    done = command(*arguments, "--trainer.strategy", "ddp_spawn")
    assert done.returncode == 2
    assert "give --trainer.strategy ddp, which" in done.stderr
    assert not (tmp_path / "run").exists()
