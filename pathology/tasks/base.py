"""What every kind of training shares: optimiser, schedule, clipping, freezing, averaging, seeds."""

import math
import os
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from timm.scheduler.scheduler import Scheduler
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn

from bcos_vit.errors import WeightsError
from bcos_vit.layers import synchronise_batch_norm
from pathology.tasks.averaging import MovingAverage
from pathology.tasks.optimisation import (
    Course,
    Schedule,
    check_optimizer,
    check_schedule,
    freeze_layers,
    make_optimizer,
    rest_frozen,
)
from pathology.tasks.training_loss import TrainingLoss


class Task(lightning.LightningModule):
    """Base of what can be trained.

    A sub-class sets ``model`` (whose parameters are trained), ``classes``, ``outcome`` and
    ``monitor``, and writes the steps. All that a step of training draws from torch's global
    generator (dropout, stochastic depth, mixing) is drawn from seed, rank and batch number: a
    resumed run repeats what one that was not interrupted draws.

    Args:
        lr: highest learning rate.
        optimizer: name of one of timm's optimisers.
        optimizer_args: its further arguments, e.g. ``{"betas": [0.9, 0.98]}``.
        weight_decay: spares norm scales, biases and what the model says.
        schedule: of the learning rate after warm-up: ``cosine`` falls to ``min_lr``; ``step``
            multiplies by ``decay_rate`` every ``decay_epochs``; ``wsd`` stays, then falls over the
            last ``decay_epochs``; ``constant`` stays.
        warmup_epochs: linear warm-up; of the training's epochs, not besides them.
        warmup_steps: the same in optimiser steps, instead.
        warmup_from: share of ``lr`` that warm-up begins at.
        min_lr: learning rate at the end of ``cosine`` and ``wsd``.
        decay_epochs: of ``step`` and ``wsd``.
        decay_rate: of ``step``.
        layer_decay: factor on the learning rate from each group of layers to the one below.
        agc: adaptive gradient clipping factor, per unit, head included (Brock et al., 2021,
            arXiv:2102.06171); 0 for none.
        clip_norm: norm that all gradients together are clipped to, instead of ``agc``; 0 for none.
        freeze: what is not trained: ``backbone`` (all but the head), a number of groups of layers
            from the input on, or the name of the last layer. Frozen parts stay in eval mode.
        ema_decay: of a moving average of the weights, which is then measured and kept as the
            model; none when omitted.
        ema_every: optimiser steps from one update of the average to the next.

    Raises:
        ValueError: an argument out of range.
    """

    model: nn.Module
    classes: list[str]
    outcome: str = "classes"

    def __init__(
        self,
        lr: float = 1e-3,
        optimizer: str = "adamw",
        optimizer_args: dict[str, Any] | None = None,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup_epochs: float = 1.0,
        warmup_steps: int | None = None,
        warmup_from: float = 0.01,
        min_lr: float = 0.0,
        decay_epochs: float | None = None,
        decay_rate: float = 0.1,
        layer_decay: float | None = None,
        agc: float = 0.01,
        clip_norm: float = 0.0,
        freeze: int | str | None = None,  # in this order, or a config's 2 would be a name
        ema_decay: float | None = None,
        ema_every: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < lr < math.inf:
            raise ValueError(f"lr must be positive, got {lr}")
        if not all(0 <= value < math.inf for value in (agc, warmup_epochs, weight_decay)):
            raise ValueError(
                "agc, warmup_epochs and weight_decay must be at least 0,"
                f" got {agc}, {warmup_epochs} and {weight_decay}"
            )
        check_optimizer(optimizer)
        check_schedule(schedule)
        if (schedule in ("step", "wsd")) != (decay_epochs is not None):
            raise ValueError(
                f"decay_epochs is for the schedules step and wsd, which need it; got schedule"
                f" {schedule} and decay_epochs {decay_epochs}"
            )
        if decay_epochs is not None and not decay_epochs > 0:
            raise ValueError(f"decay_epochs must be positive, got {decay_epochs}")
        if warmup_steps is not None and warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}")
        if not 0 <= warmup_from <= 1 or not 0 <= min_lr <= lr or not 0 < decay_rate <= 1:
            raise ValueError(
                "warmup_from must be in [0, 1], min_lr in [0, lr] and decay_rate in (0, 1],"
                f" got {warmup_from}, {min_lr} and {decay_rate}"
            )
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], got {layer_decay}")
        if not clip_norm >= 0 or (clip_norm and agc):
            raise ValueError(
                f"clip_norm must be at least 0, and agc 0 with it; got {clip_norm} and {agc}"
            )
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"ema_decay must be in (0, 1), got {ema_decay}")
        if ema_every < 1:
            raise ValueError(f"ema_every must be at least 1, got {ema_every}")
        self.save_hyperparameters()

    @property
    def monitor(self) -> str:
        """The metric that tells the best epoch; larger is better."""
        raise NotImplementedError

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> Tensor:
        """Logits ``(examples, outputs)`` of a batch of the data module."""
        raise NotImplementedError

    def class_shares(self) -> Tensor:
        """Share ``(classes,)`` of training examples that show each class, as the data draws them.

        Raises:
            ValueError: the data module does not say.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "class_shares"):
            raise ValueError(
                "logit_bias prior and class_weights balanced need data that has classes"
            )
        shares: Tensor = torch.as_tensor(data.class_shares(), dtype=torch.float64)
        return shares

    # --- a model that becomes another one while it is trained ------------------------------------

    def has_arrived_by(self, step: int) -> bool:
        """Whether the model is, in this step of training (the first is 0), what it is to become."""
        return True

    @property
    def has_arrived(self) -> bool:
        """Whether the model is what it is to become: always, unless it is being converted."""
        return self.has_arrived_by(self.global_step)

    def put_at_stage(self, other: "Task") -> None:
        """Set a copy to where this task is on that way, which may be no matter of weights."""

    def check_length(self, max_epochs: int | None) -> None:
        """Refuse a training that ends before the model is what it is to become.

        Raises:
            ValueError: ``max_epochs`` are too few.
        """

    # --- Lightning's hooks -----------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Freeze what is to be frozen.

        Raises:
            ValueError: the trainer is told to clip gradients, which is the task's.
        """
        if stage != "fit":
            return
        if self.trainer.gradient_clip_val is not None:
            raise ValueError(
                "trainer.gradient_clip_val is not used; give model.clip_norm and model.agc 0"
            )
        if self.hparams["freeze"] is not None:
            freeze_layers(self.model, self.hparams["freeze"])

    def train(self, mode: bool = True) -> "Task":
        """Training mode, except for what is frozen."""
        super().train(mode)
        if mode and self.hparams.get("freeze") is not None:
            rest_frozen(self.model)
        return self

    def on_train_start(self) -> None:
        """Rest what is frozen; share batch statistics between devices if the trainer is to."""
        if self.hparams["freeze"] is not None:
            rest_frozen(self.model)  # Lightning leaves modes as they are
        if getattr(self.trainer.strategy, "_layer_sync", None) is not None:
            # Lightning's sync_batchnorm knows torch's norms only.
            synchronise_batch_norm(self.model)

    def on_train_batch_start(self, *_: Any) -> None:
        """Seed torch's global generators for this batch."""
        number = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        torch.manual_seed(step_seed(self.trainer.global_rank, number))

    def configure_callbacks(self) -> list[Callback]:
        """The curve of the loss, and the moving average, if any."""
        decay, every = self.hparams["ema_decay"], self.hparams["ema_every"]
        average = [] if decay is None else [MovingAverage(decay, every)]
        return [TrainingLoss(), *average]

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        """Clip once per optimiser step, after gradients were accumulated."""
        if self.hparams["agc"]:
            adaptive_clip_grad(self.model.parameters(), clip_factor=self.hparams["agc"], eps=1e-3)
        elif self.hparams["clip_norm"]:
            self.clip_gradients(optimizer, self.hparams["clip_norm"], "norm")

    def configure_optimizers(self) -> Any:
        options = self.hparams
        optimizer = make_optimizer(
            self.model,
            options["optimizer"],
            options["lr"],
            options["weight_decay"],
            options["layer_decay"],
            options["optimizer_args"],
        )
        scheduler = self._course().of(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def lr_scheduler_step(self, scheduler: Scheduler, metric: Any) -> None:  # type: ignore[override]
        """Set learning rates for the next step."""
        scheduler.step_update(self.global_step)

    def _course(self) -> Course:
        """The schedule in steps of this training."""
        options = self.hparams
        steps = float(self.trainer.estimated_stepping_batches)
        if math.isinf(steps):
            raise ValueError(
                "the learning rate needs an end of training: give trainer.max_epochs or"
                " trainer.max_steps"
            )
        total = max(1, int(steps))
        self.trainer.fit_loop.setup_data()  # where steps end it, Lightning has not counted batches
        per_epoch = math.ceil(
            self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        )
        given = options["warmup_steps"]
        warmup = int(options["warmup_epochs"] * per_epoch) if given is None else given
        return Course(
            options["schedule"],
            total,
            min(total - 1, warmup),
            options["warmup_from"],
            options["min_lr"],
            max(1, round((options["decay_epochs"] or 1) * per_epoch)),
            options["decay_rate"],
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes before its tensors meet ours."""
        stored = checkpoint.get("hyper_parameters", {})
        if list(stored.get("classes", self.classes) or []) != self.classes:
            raise WeightsError(
                f"the checkpoint was trained for {len(stored['classes'])} classes"
                f" ({', '.join(stored['classes'])}), this run has {len(self.classes)}"
                f" ({', '.join(self.classes)}); train anew, or correct the list of classes"
            )


def step_seed(rank: int, number: int) -> int:
    """Seed of a batch of training: of ``seed_everything``'s seed, the device and the batch."""
    seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
    draw = np.random.SeedSequence([seed, rank, number, 1]).generate_state(2)
    return int(draw[0]) << 32 | int(draw[1])
