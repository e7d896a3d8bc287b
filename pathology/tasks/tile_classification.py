"""Supervised classification of tiles."""

import copy
import pickle
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from timm.models import load_state_dict
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassF1Score,
    MulticlassRecall,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from bcos_vit.errors import WeightsError
from bcos_vit.layers import Logits, default_logit_bias, prior_logit_bias
from bcos_vit.losses import (
    ClassCrossEntropy,
    LabelBCE,
    OneHotBCE,
    as_shares,
    balanced_weights,
)
from bcos_vit.models import create_model
from bcos_vit.models.base import BcosModel
from bcos_vit.models.convert import Homotopy, bcosify
from bcos_vit.models.dense import Dense
from pathology.data.tiles import TileOutcome
from pathology.tasks.base import Task
from pathology.tasks.encoding import TileEncoding
from pathology.tasks.mixing import Mixing
from pathology.tasks.weight_file import read_weight_file

TileLoss = OneHotBCE | ClassCrossEntropy | LabelBCE


class TileClassification(Task):
    """Trains any timm model, B-cos or conventional, on labelled tiles.

    B-cos models are trained as published: binary cross-entropy on each logit, Adam, adaptive
    gradient clipping, linear warm-up and cosine decay (Boehle et al., TPAMI 2024,
    arXiv:2306.10898). Conventional ones get cross-entropy by default, all else equal. With
    ``bcosify_epochs`` a conventional one becomes a B-cos model while it is trained.

    Args:
        model: name in timm's registry, or ``module:name`` of a module that registers it.
        classes: class names, in the order of the logits; taken from the data when run by config.
        model_args: further arguments of the model, e.g. ``{"img_size": 96}``.
        outcome: ``classes``, one per tile, or ``labels``, any number; taken from the data when run
            by config.
        loss: ``bce`` or ``ce``; by the kind of model when omitted, ``bce`` for labels.
        off_target: lowest target of ``bce`` for classes; the B-cos papers have 1 / classes.
        label_smoothing: share of labels that is spread, see :mod:`bcos_vit.losses`.
        class_weights: how much tiles of each class count, or labels that are there; ``balanced`` so
            that all classes count the same, by how often training shows them.
        logit_bias: constant of a B-cos model's logits: ``default`` (see
            :func:`bcos_vit.layers.default_logit_bias`), ``prior`` for the log-odds of how often
            training shows each class, at most -3, or a number. Explanations report it.
        temperature: that a B-cos model's evidence is divided by.
        mixup: a of mixup's Beta(a, a); 0 for none.
        cutmix: a of CutMix's Beta(a, a); 0 for none. With both, half of the batches get each.
        init_from: checkpoint of another run of the same model and encoding, or a file of such a
            timm model's weights alone (``.safetensors``, ``.pth``, ``.bin``), to start from; the
            head starts anew, since classes differ. The other run may have been conventional, or
            converted itself (then ``bcosify_epochs`` is 0).
        bcosify_epochs: turn the conventional ``model`` into a B-cos model: over this many epochs
            its exponent goes from 1 to ``bcosify_b`` and its biases to 0 (see
            :func:`bcos_vit.models.bcosify`); 0 for at once. It stays conventional when omitted.
        bcosify_b: exponent at the end of that way.
        stain_space: stains and glass of a model with ``encoding: stain``, see
            :class:`bcos_vit.stain_space.StainSpace`.
        dense_halo_px: dense evaluation: images are tiles with so many pixels around them, and
            logits those of :class:`bcos_vit.models.dense.Dense`, of which padding is no part; taken
            from the data when run by config. Another function than the model on plain tiles.
        optimisation: see :class:`~pathology.tasks.base.Task`.

    Raises:
        WeightsError: ``init_from`` cannot be read, or is of another model.
        ConversionError: ``model`` has no B-cos form.
    """

    def __init__(
        self,
        model: str,
        classes: list[str],
        model_args: dict[str, Any] | None = None,
        outcome: TileOutcome = "classes",
        loss: Literal["bce", "ce"] | None = None,
        off_target: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        logit_bias: float | Literal["default", "prior"] = "default",
        temperature: float = 1.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        init_from: str | None = None,
        bcosify_epochs: float | None = None,
        bcosify_b: float = 2.0,
        stain_space: dict[str, Any] | None = None,
        dense_halo_px: int | None = None,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.classes, self.outcome = list(classes), outcome
        if outcome not in get_args(TileOutcome):
            raise ValueError(f"outcome of tiles must be classes or labels, got {outcome!r}")
        self.mixing = Mixing(mixup, cutmix)
        if bcosify_epochs is None and bcosify_b != 2.0:
            raise ValueError("bcosify_b is for conversion; give bcosify_epochs, too")
        if bcosify_epochs is not None and not bcosify_epochs >= 0:
            raise ValueError(f"bcosify_epochs must be at least 0, got {bcosify_epochs}")
        try:
            self.model = create_model(model, num_classes=len(classes), **(model_args or {}))
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"model_args {model_args} do not suit {model}: {error}") from error
        config: Any = getattr(self.model, "pretrained_cfg", None) or {}
        if (model_args or {}).get("pretrained") and "." not in model and config.get("tag"):
            # Published weights may be of a variant; reading this run back needs its full name.
            self.hparams["model"] = f"{model}.{config['tag']}"
        start = None if init_from is None else first_weights(init_from)
        was_converted = start is not None and _setting(start, "bcosify_epochs") is not None
        if start is not None and not was_converted:
            load_backbone(self.model, start, init_from)
        self.homotopy: Homotopy | None = None
        if bcosify_epochs is not None:
            self.homotopy = Homotopy(0, bcosify_b)  # its steps are known once training starts
            self.model = self._bcosified()
        if start is not None and was_converted:
            if bcosify_epochs != 0:
                raise ValueError(
                    f"{init_from} is of a model that was converted; give bcosify_epochs 0"
                )
            load_backbone(self.model, start, init_from)
        is_ours = isinstance(self.model, BcosModel) and not self.model.kit.conventional
        is_bcos = is_ours or self.homotopy is not None
        if not is_bcos and (logit_bias != "default" or temperature != 1.0):
            raise ValueError("logit_bias and temperature are of B-cos models")
        self._set_logits(logit_bias, temperature)
        self._dense: tuple[Dense, ...] = ()
        if dense_halo_px is not None:
            if cutmix:
                raise ValueError(
                    "cutmix counts areas of whole images, the halo too; leave it out with"
                    " dense_halo_px"
                )
            # Not a module of this one: its weights are the model's, under their names.
            self._dense = (Dense(self.model, dense_halo_px),)
        self.encoding = TileEncoding(self.model, stain_space)
        if start is not None and start["hyper_parameters"]:
            self._check_same_input(start, init_from)
        self.loss_name = loss or ("bce" if is_bcos or outcome == "labels" else "ce")
        self.loss = self._make_loss(off_target, label_smoothing)
        self.plain_loss = self._make_loss(0.0, 0.0)
        if isinstance(class_weights, list):
            if len(class_weights) != len(classes):
                raise ValueError(
                    f"class_weights must be {len(classes)}, one per class; got {len(class_weights)}"
                )
            self.loss.weigh(torch.tensor(class_weights))
        elif class_weights not in (None, "balanced"):
            raise ValueError(f"class_weights must be numbers or balanced, got {class_weights!r}")
        self.val_metrics = self._make_metrics().clone(prefix="val_")

    def _make_loss(self, off_target: float, label_smoothing: float) -> TileLoss:
        if self.outcome == "labels":
            if self.loss_name != "bce":
                raise ValueError(f"labels are trained by loss bce, got {self.loss_name!r}")
            if off_target:
                raise ValueError("off_target is for classes; labels have label_smoothing")
            return LabelBCE(label_smoothing)
        if self.loss_name == "bce":
            return OneHotBCE(off_target, label_smoothing)
        if self.loss_name != "ce":
            raise ValueError(f"loss must be bce or ce, got {self.loss_name!r}")
        if off_target:
            raise ValueError("off_target is for loss bce; cross-entropy has label_smoothing")
        return ClassCrossEntropy(label_smoothing)

    def _make_metrics(self) -> MetricCollection:
        count = len(self.classes)
        if self.outcome == "labels":
            return MetricCollection(
                {
                    "auroc": MultilabelAUROC(count, average="macro"),
                    "auprc": MultilabelAveragePrecision(count, average="macro"),
                    "f1": MultilabelF1Score(count, average="macro"),
                }
            )
        return MetricCollection(
            {
                "auroc": MulticlassAUROC(count),
                "balanced_accuracy": MulticlassRecall(count, average="macro"),
                "f1": MulticlassF1Score(count, average="macro"),
            }
        )

    def _set_logits(self, bias: float | str, temperature: float) -> None:
        """Give a B-cos head its constants; ``prior`` is known when training starts.

        Raises:
            ValueError: ``bias`` is neither a number nor a word, or is given twice.
        """
        if isinstance(bias, str) and bias not in ("default", "prior"):
            raise ValueError(f"logit_bias must be default, prior or a number, got {bias!r}")
        if bias == "default" and temperature == 1.0:
            return
        given = self.hparams["model_args"] or {}
        assert isinstance(self.model, BcosModel)
        twice = [name for name in ("logit_bias", "temperature") if name in given]
        if twice:
            raise ValueError(f"give {twice[0]} once: here or in model_args")
        if not isinstance(bias, str):
            self.model.logit_bias = float(bias)
        self.model.temperature = temperature
        self.model.logits = Logits(len(self.classes), self.model.logit_bias, temperature)

    def setup(self, stage: str) -> None:
        """Find out what depends on how often training shows each class.

        Raises:
            ValueError: see :meth:`Task.setup <pathology.tasks.base.Task.setup>`.
        """
        super().setup(stage)
        prior = self.hparams["logit_bias"] == "prior"
        balanced = self.hparams["class_weights"] == "balanced"
        if stage != "fit" or not (prior or balanced):
            return
        shares = self.class_shares()
        if balanced:
            odds = (1 - shares) / shares
            self.loss.weigh(odds if self.outcome == "labels" else balanced_weights(shares))
        if prior:
            assert isinstance(self.model, BcosModel)
            assert isinstance(self.model.logits, Logits)
            self.model.logits.bias.copy_(prior_logit_bias(shares))

    @property
    def monitor(self) -> str:
        """The metric that tells the best epoch; larger is better."""
        return "val_auroc" if self.homotopy is None else "val_auroc_as_bcos"

    def _bcosified(self) -> BcosModel:
        """The model rebuilt so that it can become B-cos, with a head for B-cos logits."""
        model: nn.Module = self.model
        # A conventional network of ours has the form already.
        is_ours = isinstance(model, BcosModel) and model.kit.conventional
        converted = model if is_ours else bcosify(model).train()
        assert isinstance(converted, BcosModel)
        converted.logit_bias = default_logit_bias(len(self.classes))
        converted.reset_classifier(len(self.classes))
        return converted

    def _check_same_input(self, start: dict[str, Any], path: str | None) -> None:
        """Refuse weights that were trained on another encoding of pixels."""
        names = [
            (_setting(start, "model_args") or {}).get("encoding"),
            (self.hparams["model_args"] or {}).get("encoding"),
        ]
        spaces = [_setting(start, "stain_space") or None, self.hparams["stain_space"] or None]
        for what, (theirs, ours) in (("encoding", names), ("stain_space", spaces)):
            if theirs != ours:
                raise WeightsError(f"{path} was trained with {what} {theirs}, this run has {ours}")

    def has_arrived_by(self, step: int) -> bool:
        """Whether the model is B-cos by then, if it is to be converted."""
        return self.homotopy is None or self.homotopy.progress(step) == 1.0

    def put_at_stage(self, other: Task) -> None:
        """Set a copy of a model that is being converted to the stage of this one."""
        if self.homotopy is not None:
            assert isinstance(self.model, BcosModel)
            assert isinstance(other.model, BcosModel)
            other.model.set_homotopy(*self.model.stage)

    def check_length(self, max_epochs: int | None) -> None:
        """Refuse a training that ends before the model is a B-cos model.

        Raises:
            ValueError: conversion takes more than ``max_epochs``.
        """
        epochs = self.hparams["bcosify_epochs"]
        if epochs and max_epochs is not None and 0 <= max_epochs < epochs:
            raise ValueError(
                f"bcosify_epochs is {epochs:g}, training ends after {max_epochs}: there would be no"
                " B-cos model; train longer, or convert faster"
            )

    def on_train_start(self) -> None:
        """Work out in how many steps the model becomes a B-cos model; share batch statistics."""
        super().on_train_start()
        epochs = self.hparams["bcosify_epochs"]
        if self.homotopy is not None and epochs:
            self.check_length(self.trainer.max_epochs)
            batches = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            self.homotopy = Homotopy(max(1, int(epochs * batches)), self.homotopy.b)

    def _go_on(self) -> None:
        """Set a model that is becoming B-cos to where it should be by now."""
        if self.homotopy is not None and self.trainer.state.fn == "fit":
            assert isinstance(self.model, BcosModel)
            self.homotopy.apply(self.model, self.global_step)

    def on_train_batch_start(self, *_: Any) -> None:
        super().on_train_batch_start()
        self._go_on()

    @property
    def dense(self) -> Dense | None:
        """The model as it is evaluated, where that is dense."""
        if not self._dense:
            return None
        (dense,) = self._dense
        dense.training = self.model.training  # no module of ours, so train() and eval() pass it by
        return dense

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> Tensor:
        """Logits ``(batch, classes)`` of a batch of tiles."""
        logits: Tensor = self(batch["image"])
        return logits.float()

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8 tiles ``(batch, 3, height, width)`` to logits ``(batch, classes)``.

        Tiles of a dense run have their halo.
        """
        network = self.model if self.dense is None else self.dense
        logits: Tensor = network(self.encoding(tiles))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Per class: independent (sigmoid) after ``bce``, exclusive (softmax) after ``ce``."""
        return logits.sigmoid() if self.loss_name == "bce" else logits.softmax(-1)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        tiles, labels = batch["image"], batch["label"]
        if self.mixing:
            shares = as_shares(labels, torch.empty(0, len(self.classes), device=labels.device))
            tiles, labels = self.mixing(tiles, shares)
        loss: Tensor = self.loss(self(tiles).float(), labels)
        return loss

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        logits, labels = self(batch["image"]).float(), batch["label"]
        loss = self.plain_loss(logits, labels)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(logits), sync_dist=True)
        if self.outcome == "labels":
            # Ordered and signed as logits are, but without the ties where a sigmoid is 1.
            self.val_metrics.update((1 + logits / (1 + logits.abs())) / 2, labels.long())
        else:
            # Differences between logits rank two classes; probabilities may both saturate.
            self.val_metrics.update(logits.softmax(-1), labels)

    def on_validation_epoch_start(self) -> None:
        if not self.trainer.sanity_checking:
            self._go_on()

    def on_validation_epoch_end(self) -> None:
        # The two batches that Lightning tries before training may hold a single class.
        if not self.trainer.sanity_checking:
            metrics = self.val_metrics.compute()
            self.log_dict(metrics, prog_bar=True, sync_dist=True)  # the same on all devices
            if self.homotopy is not None:
                # An epoch on the way is no candidate: its model still has biases.
                score = metrics["val_auroc"] if self.has_arrived else -1.0
                self.log(self.monitor, score, sync_dist=True)
        self.val_metrics.reset()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes or another model before its tensors meet ours."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get("hyper_parameters", {})
        if stored.get("model", self.hparams["model"]) != self.hparams["model"]:
            raise WeightsError(
                f"the checkpoint is of model {stored['model']!r}, this run's is"
                f" {self.hparams['model']!r}"
            )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a run's checkpoint file holds.

    Raises:
        WeightsError: the file cannot be read, or is no checkpoint of a run.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"], checkpoint["hyper_parameters"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"{path}: not a usable checkpoint: {reason}") from error
    return checkpoint


def first_weights(path: str | Path) -> dict[str, Any]:
    """What to start from: weights of a run with its settings, or of a timm model without any.

    Raises:
        WeightsError: the file cannot be read, or holds no weights.
    """
    path = Path(path)
    try:
        return read_weight_file(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    except WeightsError:
        tensors = _weights_alone(path)
        if not tensors:
            raise
    weights = {f"model.{name}": value for name, value in tensors.items()}
    return {"state_dict": weights, "hyper_parameters": {}}


def _weights_alone(path: Path) -> dict[str, Tensor]:
    """A timm model's weights; none where the file holds something else."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = load_state_dict(str(path))
    # What unpickling may raise, of bytes that are anything.
    except Exception:
        return {}
    return found if all(isinstance(value, Tensor) for value in found.values()) else {}


def _setting(checkpoint: dict[str, Any], name: str) -> Any:
    """What a run's task was made with."""
    return checkpoint["hyper_parameters"].get(name)


def load_backbone(model: nn.Module, checkpoint: dict[str, Any], path: str | Path | None) -> None:
    """Give ``model`` the weights of a checkpoint, except those of its head.

    Args:
        model: a timm model.
        checkpoint: of a run of the same architecture.
        path: where it is from.

    Raises:
        WeightsError: its tensors do not fit.
    """
    stored = checkpoint["state_dict"]
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
