"""Checkpoints of a run: complete files, of states from which training goes on unchanged."""

import math
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

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
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's words for a file that could not be written
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
            file.flush()
            os.fsync(file.fileno())
        if Path(path) == self.run.best:
            write_weight_file(self.run.weights, checkpoint)


class BestEpoch(ModelCheckpoint):
    """Keeps the weights of the best epoch, also where a run's folder was moved meanwhile.

    Of several epochs with the highest score it is the one of the lowest loss: of few examples many
    have an AUROC of 1, and the first of them is hardly trained.

    Lightning's own state holds absolute paths: with another one it forgets what was best so far,
    and the next epoch takes its place, however bad.

    Args:
        run: the run's folder.
        monitor: the metric that tells, the larger the better.
    """

    def __init__(self, run: Run, monitor: str) -> None:
        super().__init__(
            run.checkpoints, "best", monitor=monitor, mode="max", enable_version_counter=False
        )
        self.run, self._loss = run, math.inf

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        loss = float(trainer.callback_metrics.get("val_loss", math.inf))
        loss = math.inf if math.isnan(loss) else loss
        is_best = super().check_monitor_top_k(trainer, current)
        if not is_best and current is not None:
            is_tied = bool(current == self.best_model_score) and loss < self._loss
            is_best = trainer.strategy.reduce_boolean_decision(is_tied)
        if is_best:
            self._loss = loss
        return is_best

    def state_dict(self) -> dict[str, Any]:
        return {"best_model_score": self.best_model_score, "loss": self._loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        score, self._loss = state_dict["best_model_score"], state_dict.get("loss", math.inf)
        if score is not None:
            path = str(Path(str(self.dirpath)) / self.run.best.name)
            self.best_model_path = self.kth_best_model_path = path
            self.best_model_score = self.kth_value = score
            self.best_k_models = {path: score}


class ResumePoints(Checkpoint):
    """Saves the whole state of training every so many minutes, every epoch, and when told to stop.

    A state is saved only where Lightning can take it up exactly: between two optimiser steps
    (gradients that are being accumulated are not part of it), and not right before validation,
    which would be skipped; behind an epoch's last batch, that is once the epoch is over. The state
    before it is kept as ``previous.ckpt``.

    Ctrl-C, SIGTERM and SIGUSR1 end training at the next such point, on all devices at the same one;
    Ctrl-C twice at once. (Lightning's own handlers save wherever they interrupt.)

    Args:
        run: the run's folder.
        minutes: from one save within an epoch to the next; 0 for none but those of epochs.
    """

    def __init__(self, run: Run, minutes: float) -> None:
        self.run, self.minutes = run, minutes
        self._due = math.inf
        self._asked: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()  # before reading processes are made, which take over what is done

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()
        self._wait()
        if trainer.is_global_zero:
            names = [path.name for path in (self.run.best, self.run.weights, self.run.last)]
            remove_drafts(self.run.checkpoints, names)
            if trainer.ckpt_path == str(self.run.previous):
                # Cannot be read; it must not take the place of the one that can.
                self.run.last.unlink(missing_ok=True)

    def _wait(self) -> None:
        self._due = time.monotonic() + 60 * self.minutes if self.minutes else math.inf

    def _listen(self) -> None:
        """Take the signals over, from Lightning, too."""
        if not self._handlers and threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
            self._handlers = {number: signal.signal(number, self._ask) for number in numbers}

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
        every, counted = trainer.val_check_batch, done
        if trainer.check_val_every_n_epoch is None:
            counted = trainer.fit_loop.total_batch_idx + 1
        if every and counted % every == 0:
            return
        is_due = time.monotonic() >= self._due
        # Clocks differ, and signals may reach one process only: all do what any wants.
        if trainer.strategy.reduce_boolean_decision(is_due or self._asked is not None, all=False):
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.max_steps != -1 and not is_last and trainer.global_step < trainer.max_steps:
            # Where steps are counted, Lightning would do the epoch's end again; so one step later.
            self._due = -math.inf
            return
        self._save(trainer)
        if not is_last:
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
        trainer.save_checkpoint(self.run.last, weights_only=False)
        self._wait()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._leave()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._leave()

    def _leave(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def point_to_resume(run: Run) -> tuple[Path | None, int]:
    """The newest checkpoint of a run that can be read, and how many steps were done by then.

    Raises:
        WeightsError: there are some, and none can be read.
    """
    found = [path for path in (run.last, run.previous) if path.is_file()]
    for path in found:
        try:
            return path, int(read_checkpoint(path)["global_step"])
        except WeightsError as error:
            if path == found[-1]:
                raise
            print(f"{error}; taking the one before")
    return None, 0
