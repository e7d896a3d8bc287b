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
from bcos_vit.layers import default_logit_bias
from bcos_vit.losses import OneHotBCE
from bcos_vit.models import create_model
from bcos_vit.models.base import BcosModel
from bcos_vit.models.convert import Homotopy, bcosify
from pathology.tasks.encoding import TileEncoding


class TileClassification(lightning.LightningModule):
    """Trains any timm model, B-cos or conventional, on labelled tiles.

    B-cos models are trained as published: binary cross-entropy on each logit, Adam, adaptive
    gradient clipping, linear warm-up and cosine decay (Boehle et al., TPAMI 2024,
    arXiv:2306.10898). Conventional ones get cross-entropy by default, all else equal. With
    ``bcosify_epochs`` a conventional one becomes a B-cos model while it is trained.

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
        bcosify_epochs: turn the conventional ``model`` into a B-cos model: over this many epochs
            its exponent goes from 1 to ``bcosify_b`` and its biases to 0 (see
            :func:`bcos_vit.models.bcosify`); 0 for at once. It stays conventional when omitted.
        bcosify_b: exponent at the end of that way.
        stain_space: stains and glass of a model with ``encoding: stain``, see
            :class:`bcos_vit.stain_space.StainSpace`.

    Raises:
        WeightsError: ``init_from`` cannot be read, or is of another model.
        ConversionError: ``model`` has no B-cos form.
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
        bcosify_epochs: float | None = None,
        bcosify_b: float = 2.0,
        stain_space: dict[str, Any] | None = None,
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
        self.homotopy: Homotopy | None = None
        if bcosify_epochs is not None:
            if bcosify_epochs < 0:
                raise ValueError(f"bcosify_epochs must be at least 0, got {bcosify_epochs}")
            self.homotopy = Homotopy(0, bcosify_b)  # its steps are known once training starts
            self.model = self._bcosified()
        self.encoding = TileEncoding(self.model, stain_space)
        is_bcos = isinstance(self.model, BcosModel) and not self.model.kit.conventional
        self.loss_name = loss or ("bce" if is_bcos or self.homotopy else "ce")
        self.loss: nn.Module = OneHotBCE() if self.loss_name == "bce" else nn.CrossEntropyLoss()
        metrics = MetricCollection(
            {
                "auroc": MulticlassAUROC(len(classes)),
                "balanced_accuracy": MulticlassRecall(len(classes), average="macro"),
                "f1": MulticlassF1Score(len(classes), average="macro"),
            }
        )
        self.val_metrics = metrics.clone(prefix="val_")

    @property
    def monitor(self) -> str:
        """The metric that tells the best epoch; larger is better."""
        return "val_auroc" if self.homotopy is None else "val_auroc_as_bcos"

    def _bcosified(self) -> BcosModel:
        """The model rebuilt so that it can become B-cos, with a head for B-cos logits."""
        converted = bcosify(self.model).train()
        converted.logit_bias = default_logit_bias(len(self.classes))
        converted.reset_classifier(len(self.classes))
        return converted

    def on_train_start(self) -> None:
        """Work out when the way to a B-cos model ends: there must be an epoch left to judge it."""
        epochs = self.hparams["bcosify_epochs"]
        if self.homotopy is None or not epochs:
            return
        most = self.trainer.max_epochs or 0
        if epochs > most:
            raise ValueError(
                f"bcosify_epochs is {epochs:g}, training ends after {most}: no epoch would be left"
                " in which the model is a B-cos model; train longer, or convert faster"
            )
        steps = int(self.trainer.estimated_stepping_batches * epochs / most)
        self.homotopy = Homotopy(steps, self.homotopy.b)

    def _go_on(self) -> None:
        """Set a model that is becoming B-cos to where it should be by now."""
        if self.homotopy is not None and self.trainer.state.fn == "fit":
            assert isinstance(self.model, BcosModel)
            self.homotopy.apply(self.model, self.global_step)

    def on_train_batch_start(self, *_: Any) -> None:
        self._go_on()

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

    def on_validation_epoch_start(self) -> None:
        if not self.trainer.sanity_checking:
            self._go_on()

    def on_validation_epoch_end(self) -> None:
        # The two batches that Lightning tries before training may hold a single class.
        if not self.trainer.sanity_checking:
            metrics = self.val_metrics.compute()
            self.log_dict(metrics, prog_bar=True)
            if self.homotopy is not None:
                # An epoch on the way is no candidate: its model still has biases.
                arrived = self.homotopy.progress(self.global_step) == 1.0
                self.log(self.monitor, metrics["val_auroc"] if arrived else -1.0)
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
