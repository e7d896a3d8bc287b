"""Training on bags through the command line: interrupted, and on two devices."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from pathology.cli import main
from pathology.data.bag_module import BagDataModule
from pathology.data.bag_sampler import BagSampler
from pathology.tasks.checkpoint import Run, load_task
from pathology.tasks.slide_prediction import SlidePrediction
from tests.pathology.made_bags import write_cohort

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("bags"), np.random.default_rng(0))


def arguments(cohort, run, outcome="classes", **more):
    """A training on 16 bags, 2 at a time."""
    words = {
        "task": "slides", "out": run, "data.manifest": cohort[0], "data.features": cohort[1],
        "data.outcome": outcome, "data.batch_size": 2, "data.num_workers": 0,
        "model.aggregator": "bcos_gated_sum", "model.lr": 0.01,
        "model.aggregator_args": "{hidden: 16, attention_hidden: 8, drop: 0.2}",
        "trainer.max_epochs": 2, "trainer.accelerator": "cpu", "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false", "trainer.num_sanity_val_steps": 0,
    }  # fmt: skip
    if outcome == "classes":
        words["data.classes"] = "[normal, tumour]"
    words |= {name.replace("__", "."): value for name, value in more.items()}
    return ["train", *(f"--{name}={value}" for name, value in words.items())]


def figures(run):
    return pd.read_csv(run / "logs" / "metrics.csv")


def stored(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_interrupted_within_an_epoch_it_comes_to_the_same(cohort, tmp_path, monkeypatch):
    # All that draws: bags, their tiles, dropout; and weights that are averaged.
    more = {
        "data__max_tiles": 4, "data__tile_dropout": 0.2, "data__balance": "class",
        "model__ema_decay": 0.5,
    }  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(arguments(cohort, whole, **more)) == 0
    inner = SlidePrediction.training_step

    def step(self, batch):
        if self.trainer.fit_loop.total_batch_idx == 10:  # of 8 an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SlidePrediction, "training_step", step)
        assert main(arguments(cohort, run, **more)) == 128 + signal.SIGTERM
    assert stored(run)["global_step"] == 11
    assert main(arguments(cohort, run, **more)) == 0
    pd.testing.assert_frame_equal(figures(run), figures(whole))
    for state in ("state_dict", "current_model_state"):
        for name, value in stored(whole)[state].items():
            assert torch.equal(stored(run)[state][name], value), name

    # Of epochs of one score the one of the lowest loss is kept, and a gated sum begins as a mean.
    scores = figures(whole).dropna(subset=["val_auroc"])
    first = scores.sort_values(["val_auroc", "val_loss"], ascending=[False, True]).iloc[0]
    assert json.loads((whole / "metrics.json").read_text())["best"]["epoch"] == first["epoch"]
    task, _ = load_task(whole)
    sizes = BagDataModule(**Run(whole).data_arguments()).dataset("train").sizes
    assert task.hparams["aggregator_args"]["expected_tiles"] == np.median(sizes)


class Together(BagSampler):
    """The batches of two devices behind one another, for a single one."""

    def epoch_order(self, epoch):
        return super().epoch_order(epoch).reshape(2, -1, 2).swapaxes(0, 1).ravel()


@pytest.mark.parametrize("outcome", ["cox", "classes"])
def test_two_devices_are_as_one_of_both_batches(cohort, tmp_path, monkeypatch, outcome):
    two, one = tmp_path / "two", tmp_path / "one"
    more = {"model__aggregator_args": "{hidden: 16, attention_hidden: 8}", "data__max_tiles": 4}
    devices = {"trainer__devices": 2, "trainer__strategy": "ddp"}
    words = arguments(cohort, two, outcome, **more, **devices)
    done = subprocess.run(
        [sys.executable, "-m", "pathology.cli", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    inner = BagDataModule.sampler

    def sampler(self, split):
        found = inner(self, split)
        found.__class__ = Together
        return found

    monkeypatch.setattr(BagDataModule, "sampler", sampler)
    assert main(arguments(cohort, one, outcome, **more, data__batch_size=4)) == 0
    found, wanted = figures(two), figures(one)
    assert len(found) == len(wanted)
    score = "val_c_index" if outcome == "cox" else "val_auroc"
    for name in ("train_loss_step", "train_loss", "val_loss", score):
        a, b = found[name].dropna().to_numpy(), wanted[name].dropna().to_numpy()
        # float32 sums in another order, which Adam makes more of.
        np.testing.assert_allclose(a, b, rtol=1e-4, err_msg=name)
