"""Checkpoints of a run: complete files, of states from which training goes on unchanged."""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from bcos_vit.errors import WeightsError
from pathology.outputs import complete_file, remove_drafts
from pathology.tasks.checkpoint import Run
from pathology.tasks.tile_classification import read_checkpoint
from pathology.tasks.weight_file import write_weight_file

STOPPING = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, a scheduler's end, SLURM's warning before it


class Stopped(Exception):
    """Training was asked to stop, and its state is saved.

    Args:
        number: the signal's.
        where: epoch and step.
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} {where}")
        self.code = 128 + number


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside their place, to disk, and then renames them.

    Lightning's own way writes to the system's temporary folder and moves: across file systems that
    is a copy, which a kill cuts short. Of the best epoch the weights are written in safetensors,
    too.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with complete_file(Path(path)) as draft, draft.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if Path(path) == self.run.best:
            write_weight_file(self.run.weights, checkpoint)


class ResumePoints(Checkpoint):
    """Saves the whole state of training every so many minutes, every epoch, and when told to stop.

    A state is saved only where Lightning can take it up exactly: between two optimiser steps
    (gradients that are being accumulated are not part of it), and not behind the last batch of an
    epoch, whose validation would be skipped; that state is saved once the epoch is over. The state
    before it is kept as ``previous.ckpt``.

    Ctrl-C, SIGTERM and SIGUSR1 end training at the next such point, on all devices at the same one;
    Ctrl-C twice at once. Lightning's own handlers save wherever they interrupt.

    Args:
        run: the run's folder.
        minutes: from one save within an epoch to the next; 0 for none but those of epochs.
    """

    def __init__(self, run: Run, minutes: float) -> None:
        self.run, self.minutes = run, minutes
        self._saved_at = 0.0
        self._asked: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at, self._asked = time.monotonic(), None
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
            self._handlers = {number: signal.signal(number, self._ask) for number in numbers}
        if trainer.is_global_zero:
            remove_drafts(self.run.checkpoints, [path.name for path in self._files()])

    def _files(self) -> tuple[Path, ...]:
        return self.run.best, self.run.weights, self.run.last

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = number

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches or done >= trainer.num_training_batches:
            return
        is_due = self.minutes > 0 and time.monotonic() - self._saved_at >= 60 * self.minutes
        # Clocks differ, and signals may reach one process only: all do what any wants.
        if trainer.strategy.reduce_boolean_decision(is_due or self._asked is not None, all=False):
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        if trainer.current_epoch + 1 != trainer.max_epochs and not trainer.should_stop:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            where = f"in epoch {trainer.current_epoch}, after step {trainer.global_step}"
            raise Stopped(self._asked or signal.SIGTERM, where)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.is_global_zero and self.run.last.is_file():
            self.run.last.replace(self.run.previous)
        trainer.save_checkpoint(self.run.last)
        self._saved_at = time.monotonic()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def point_to_resume(run: Run) -> Path | None:
    """The newest checkpoint of a run that can be read.

    Raises:
        WeightsError: there are some, and none can be read.
    """
    found = [path for path in (run.last, run.previous) if path.is_file()]
    for path in found:
        try:
            read_checkpoint(path)
        except WeightsError as error:
            if path == found[-1]:
                raise
            print(f"{error}; taking the one before")
        else:
            return path
    return None
