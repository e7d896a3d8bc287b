"""Training on two devices, in pieces of a batch, and in half precision.

Two real processes that talk to one another by gloo. What may differ is the order of sums: float32
rounds at 6e-8, and Adam, which divides small gradients by their own size, makes much of that.
"""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torchmetrics.functional.classification import multiclass_auroc

from pathology.cli import main
from pathology.data.modules import TileDataModule
from pathology.data.samplers import TileSampler
from pathology.tasks.checkpoint import load_task

CLASSES = ["normal", "tumour"]
STEPS = 3  # of each of two epochs
COUNT = 320  # tiles of validation; of an odd number, two devices would count one twice
# With statistics over all devices, clipped gradients, averaged weights and a schedule.
TOGETHER = ("--trainer.sync_batchnorm", "true", "--model.ema_decay", "0.5")


@pytest.fixture
def arguments(cohort, cohort_tiles):
    """A training of 8 tiles a step on two devices."""
    return [
        "train", "--model.model", "bcos_resnet18", "--data.manifest", str(cohort),
        "--data.tiles", str(cohort_tiles), "--data.classes", "[normal, tumour]",
        "--data.batch_size", "4", "--data.num_workers", "0", "--data.augment", "none",
        "--trainer.max_epochs", "2", "--trainer.limit_train_batches", str(STEPS),
        "--trainer.limit_val_batches", str(COUNT // 8),
        "--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0",
        "--trainer.accelerator", "cpu", "--trainer.devices", "2",
        "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip


def given(arguments, **changes):
    """The same arguments with others in their place."""
    words = list(arguments)
    for name, value in changes.items():
        words[words.index(f"--{name.replace('__', '.')}") + 1] = str(value)
    return words


def command(*words):
    """In a process of its own, which the other devices' processes are made after."""
    return subprocess.run(
        [sys.executable, "-m", "pathology.cli", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def figures(run):
    return pd.read_csv(run / "logs" / "metrics.csv")


def assert_same_curves(found, expected):
    assert len(found) == len(expected)
    for name in ("train_loss_step", "train_loss", "lr", "val_loss", "val_auroc"):
        one, other = found[name].dropna().to_numpy(), expected[name].dropna().to_numpy()
        # Of tiles whose logits are nearly equal, rounding says which is first.
        np.testing.assert_allclose(
            one, other, rtol=5e-3 if name == "val_auroc" else 1e-4, err_msg=name
        )


class Together(TileSampler):
    """The batches of two devices behind one another, for a single one."""

    def epoch_order(self, epoch):
        order = super().epoch_order(epoch)
        halves = np.resize(order, (2, -(-len(order) // 2)))
        whole = halves.shape[1] // 4 * 4
        return halves[:, :whole].reshape(2, -1, 4).swapaxes(0, 1).ravel()


def test_two_devices_train_and_report_as_one_that_sees_both_batches(
    arguments, tmp_path, monkeypatch
):
    run, alone = tmp_path / "two", tmp_path / "one"
    done = command(*arguments, *TOGETHER, "--trainer.strategy", "ddp", "--out", run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights in") == 1
    inner = TileDataModule.sampler

    def sampler(self, split, dataset):
        one = inner(self, split, dataset)
        one.__class__ = Together
        return one

    monkeypatch.setattr(TileDataModule, "sampler", sampler)
    words = given(arguments, trainer__devices=1, data__batch_size=8)
    assert main([*words, *TOGETHER, "--out", str(alone)]) == 0
    data = TileDataModule(**yaml.safe_load((run / "config.yaml").read_text())["data"])
    assert_same_curves(figures(run), figures(alone))
    best = yaml.safe_load((run / "finished").read_text())
    assert best["epochs"] == 2
    assert best["val_auroc"] == pytest.approx(figures(run)["val_auroc"].max())
    # What one process makes of the weights that two have written.
    epoch = int(figures(run)["val_auroc"].dropna().to_numpy().argmax())
    task, _ = load_task(run)
    with torch.no_grad():
        logits = torch.cat([task.predict_step(batch) for batch in data.loader("val")])[:COUNT]
    labels = torch.from_numpy(data.dataset("val").labels[:COUNT]).long()
    auroc = multiclass_auroc(logits.softmax(-1), labels, len(CLASSES)).item()
    assert figures(run)["val_auroc"].dropna().iloc[epoch] == pytest.approx(auroc, rel=5e-3)


def test_accumulated_gradients_are_those_of_the_larger_batch(arguments, tmp_path):
    # A model without batch norm, whose statistics would be those of the small batches.
    same = given(
        arguments, model__model="bcos_vit_tiny_patch16_224", trainer__devices=1,
        trainer__max_epochs=1,
    )  # fmt: skip
    same += ["--model.model_args", "{img_size: 64, depth: 2}"]
    pieces = given(
        same, trainer__limit_train_batches=2 * STEPS, trainer__limit_val_batches=COUNT // 4
    )
    pieces += ["--trainer.accumulate_grad_batches", "2"]
    whole = given(same, data__batch_size=8)
    assert main([*pieces, "--out", str(tmp_path / "pieces")]) == 0
    assert main([*whole, "--out", str(tmp_path / "whole")]) == 0
    expected = figures(tmp_path / "whole")
    assert_same_curves(figures(tmp_path / "pieces"), expected)
    half = given(whole, trainer__precision="bf16-mixed")
    assert main([*half, "--out", str(tmp_path / "half")]) == 0
    found = figures(tmp_path / "half")["train_loss_step"].dropna()
    wanted = expected["train_loss_step"].dropna()
    # bfloat16 keeps 8 bits
    np.testing.assert_allclose(found, wanted, rtol=0.03)
    assert not np.array_equal(found, wanted)


def test_processes_that_tell_nothing_back_are_refused(arguments, tmp_path, capsys):
    words = [*arguments, "--trainer.strategy", "ddp_spawn", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "give --trainer.strategy ddp, which" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
