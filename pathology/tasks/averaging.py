"""An exponential moving average of the weights, which is what is measured and kept."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Averages parameters and buffers of a :class:`~pathology.tasks.base.Task`.

    After the first step the average is the weights; then ``a <- decay a + (1 - decay) w`` every
    ``every`` steps. A model that is still being converted is followed, not averaged: what it was on
    the way is another network. Validation and checkpoints take the average; a checkpoint's
    ``current_model_state`` is what training goes on from.

    Args:
        decay: in (0, 1).
        every: optimiser steps from one update to the next.
    """

    def __init__(self, decay: float, every: int = 1) -> None:
        def average(mean: Tensor, new: Tensor, _: Any) -> Tensor:
            # lerp keeps what does not change, as a logit bias, to the last bit.
            return mean.lerp(new, 1 - decay) if mean.is_floating_point() else new

        super().__init__(avg_fn=average)
        self.decay, self.every = decay, every
        self._on_the_way = False
        self._swapped = False

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After the first step, every ``every`` steps from there, and until conversion is done."""
        if step_idx is None:
            return False
        assert self._average_model is not None
        fresh = not self._average_model.n_averaged
        return bool(fresh) or self._on_the_way or step_idx % self.every == 0

    def on_sanity_check_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._begin(pl_module)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._begin(pl_module)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        step = max(0, trainer.global_step - 1)  # there is none yet while gradients accumulate
        self._on_the_way = not pl_module.has_arrived_by(step)  # type: ignore[operator]
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        if self._on_the_way:
            assert self._average_model is not None
            self._average_model.n_averaged.zero_()  # so that the next update copies, too

    def _swap_models(self, pl_module: lightning.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        if self._swapped:  # within validation; what is saved now has to be as it is while training
            self._swap_models(pl_module)

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        if self._average_model is not None:
            pl_module.put_at_stage(self._average_model.module)  # type: ignore[operator]
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def _begin(self, task: lightning.LightningModule) -> None:
        """Have the average where the model is, and equal to it before the first step."""
        assert self._average_model is not None
        self._average_model.to(task.device)
        if not self._average_model.n_averaged:
            with torch.no_grad():
                self._average_model.module.load_state_dict(task.state_dict())
