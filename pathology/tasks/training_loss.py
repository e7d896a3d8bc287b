"""The loss while training, the same whether a run was interrupted or not."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class TrainingLoss(Callback):
    """Logs ``train_loss_step`` of steps, ``train_loss`` of epochs, and the learning rate ``lr``.

    Lightning's own mean of an epoch begins anew where a run is resumed within it. Here, too, the
    loss of a step is that of all its batches on all devices. ``lr`` is the highest of all layers.
    """

    def __init__(self) -> None:
        self._lr = 0.0
        # Sum of loss times examples, and of examples: of the step and of the epoch.
        self._step: Tensor | None = None
        self._epoch: Tensor | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        batches, done = trainer.accumulate_grad_batches, batch_idx + 1
        # Which Lightning has divided by the number of batches in a step.
        loss = outputs["loss"].detach().to(_precision(pl_module)) * batches
        size = len(next(iter(batch.values())))
        seen = torch.stack([loss * size, torch.full_like(loss, size)])
        self._step = _add(self._step, seen)
        self._epoch = _add(self._epoch, seen)
        if done % batches and done < trainer.num_training_batches:
            return
        seen, self._step = self._step, None
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            _log(trainer, {"train_loss_step": _mean(trainer, seen), "lr": self._lr})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch is not None:
            loss = _mean(trainer, self._epoch)
            # At once, so that the row is there before a checkpoint says that the epoch is done.
            _log(trainer, {"train_loss": loss})
            pl_module.log("train_loss", loss, prog_bar=True, logger=False, sync_dist=True)
        self._step = self._epoch = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        seen = self._epoch
        if seen is None:
            seen = torch.zeros(2, dtype=_precision(pl_module), device=pl_module.device)
        # Of all devices, since only one of them saves.
        checkpoint["train_loss_so_far"] = trainer.strategy.reduce(seen, reduce_op="mean").cpu()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        seen = checkpoint.get("train_loss_so_far")
        self._epoch = seen if seen is not None and seen[1] else None


def _precision(task: LightningModule) -> torch.dtype:
    return torch.float32 if task.device.type == "mps" else torch.float64


def _add(sums: Tensor | None, more: Tensor) -> Tensor:
    return more if sums is None else sums.to(more) + more


def _mean(trainer: Trainer, seen: Tensor) -> float:
    """Loss per example on all devices."""
    total = trainer.strategy.reduce(seen.clone(), reduce_op="sum")
    return float(total[0] / total[1])


def _log(trainer: Trainer, metrics: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics | {"epoch": trainer.current_epoch}, step=trainer.global_step - 1)
