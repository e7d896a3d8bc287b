"""Supervised classification of tiles."""

import copy
import pickle
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from timm.optim import param_groups_weight_decay
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score, MulticlassRecall

from bcos_vit.errors import WeightsError
from bcos_vit.losses import OneHotBCE
from bcos_vit.models import create_model
from pathology.tasks.encoding import TileEncoding


class TileClassification(lightning.LightningModule):
    """Trains any timm model, B-cos or conventional, on labelled tiles.

    B-cos models are trained as published: binary cross-entropy on each logit, Adam, adaptive
    gradient
    clipping, linear warm-up and cosine decay (Boehle et al., TPAMI 2024, arXiv:2306.10898).
    Conventional ones get cross-entropy by default, all else equal.

    Args:
        model: name in timm's registry.
        classes: class names, in the order of the logits; taken from the data when run by config.
        model_args: further arguments of the model, e.g. ``{"img_size": 96}``.
        loss: ``"bce"`` or ``"ce"``; by the kind of model when omitted.
        lr: highest learning rate.
        weight_decay: AdamW's; norm scales are spared.
        warmup_epochs: linear warm-up from 1 % of ``lr``; cosine decay to 0 follows.
        agc: adaptive gradient clipping factor; 0 for none.
        init_from: checkpoint of another run of the same model, whose weights to start from; the
            head starts anew, since classes differ.

    Raises:
        WeightsError: ``init_from`` cannot be read, or is of another model.
    """

    def __init__(
        self,
        model: str,
        classes: list[str],
        model_args: dict[str, Any] | None = None,
        loss: Literal["bce", "ce"] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_epochs: float = 1.0,
        agc: float = 0.01,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if agc < 0 or warmup_epochs < 0 or weight_decay < 0:
            raise ValueError("agc, warmup_epochs and weight_decay must be at least 0")
        self.save_hyperparameters()
        self.classes = list(classes)
        try:
            self.model = create_model(model, num_classes=len(classes), **(model_args or {}))
        except TypeError as error:
            raise ValueError(f"model_args {model_args} do not suit {model}: {error}") from error
        if init_from is not None:
            load_backbone(self.model, init_from)
        self.encoding = TileEncoding(self.model)
        is_bcos = getattr(self.model, "dynamic_linear", False)
        self.loss_name = loss or ("bce" if is_bcos else "ce")
        self.loss: nn.Module = OneHotBCE() if self.loss_name == "bce" else nn.CrossEntropyLoss()
        metrics = MetricCollection(
            {
                "auroc": MulticlassAUROC(len(classes)),
                "balanced_accuracy": MulticlassRecall(len(classes), average="macro"),
                "f1": MulticlassF1Score(len(classes), average="macro"),
            }
        )
        self.val_metrics = metrics.clone(prefix="val_")

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8 tiles ``(batch, 3, height, width)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.model(self.encoding(tiles))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Per class: independent (sigmoid) after ``bce``, exclusive (softmax) after ``ce``."""
        return logits.sigmoid() if self.loss_name == "bce" else logits.softmax(-1)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.loss(self(batch["image"]), batch["label"])
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        logits = self(batch["image"]).float()
        size = len(logits)
        self.log("val_loss", self.loss(logits, batch["label"]), prog_bar=True, batch_size=size)
        # Differences between logits rank two classes; probabilities may both saturate.
        self.val_metrics.update(logits.softmax(-1), batch["label"])

    def on_validation_epoch_end(self) -> None:
        # The two batches that Lightning tries before training may hold a single class.
        if not self.trainer.sanity_checking:
            self.log_dict(self.val_metrics.compute(), prog_bar=True)
        self.val_metrics.reset()

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        """Unit-wise clipping (Brock et al., 2021, arXiv:2102.06171), head included."""
        if self.hparams["agc"]:
            adaptive_clip_grad(self.model.parameters(), clip_factor=self.hparams["agc"], eps=1e-3)

    def configure_optimizers(self) -> Any:
        spare: Any = getattr(self.model, "no_weight_decay", set)
        groups = param_groups_weight_decay(
            self.model, self.hparams["weight_decay"], no_weight_decay_list=spare()
        )
        optimizer = torch.optim.AdamW(groups, lr=self.hparams["lr"])
        total = max(1, int(self.trainer.estimated_stepping_batches))
        per_epoch = total / max(1, self.trainer.max_epochs or 1)
        warmup = min(total - 1, int(self.hparams["warmup_epochs"] * per_epoch))
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warmup))
        if not warmup:
            schedule: torch.optim.lr_scheduler.LRScheduler = cosine
        else:
            rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, warmup)
            schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, cosine], [warmup])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes before its tensors meet ours."""
        stored = checkpoint.get("hyper_parameters", {})
        if list(stored.get("classes", self.classes)) != self.classes:
            raise WeightsError(
                f"the checkpoint was trained for {len(stored['classes'])} classes"
                f" ({', '.join(stored['classes'])}), this run has {len(self.classes)}"
                f" ({', '.join(self.classes)}); train anew, or correct the list of classes"
            )
        if stored.get("model", self.hparams["model"]) != self.hparams["model"]:
            raise WeightsError(
                f"the checkpoint is of model {stored['model']!r}, this run's is"
                f" {self.hparams['model']!r}"
            )


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Give ``model`` the weights of a checkpoint, except those of its head.

    Args:
        model: a timm model.
        path: a ``.ckpt`` file of a run of the same architecture.

    Raises:
        WeightsError: the file cannot be read, or its tensors do not fit.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: not a usable checkpoint: {error or type(error)}") from error
    tensors = {k.removeprefix("model."): v for k, v in stored.items() if k.startswith("model.")}
    # What the head is made of is what goes when there are no classes.
    headless = copy.deepcopy(model)
    headless.reset_classifier(0)  # type: ignore[operator]
    wanted = headless.state_dict()
    misfits = [k for k, v in wanted.items() if k not in tensors or tensors[k].shape != v.shape]
    if misfits:
        raise WeightsError(
            f"{path}: holds no {misfits[0]!r} of the right shape"
            f" ({len(misfits)} of {len(wanted)} tensors do not fit); it is of another model"
        )
    model.load_state_dict({k: tensors[k] for k in wanted}, strict=False)
