"""Prediction of what is known of whole slides, or patients, from bags of their tiles."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bcos_vit.errors import WeightsError
from bcos_vit.models import create_model
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.local_logits import BcosGatedSum
from pathology.aggregators.registry import AGGREGATORS, make_aggregator
from pathology.data.bag_module import BagDataModule
from pathology.data.encoders import PooledFeatures
from pathology.data.features import FeatureKind
from pathology.data.truth import OutcomeName
from pathology.errors import StampMismatchError
from pathology.tasks.base import Task
from pathology.tasks.encoding import TileEncoding
from pathology.tasks.outcomes import ClassLoss, Outcome, Ties, make_outcome
from pathology.tasks.slide_model import SlideModel
from pathology.tasks.tile_classification import load_backbone, read_checkpoint


class SlidePrediction(Task):
    """Trains an aggregator on bags of features, or an encoder and an aggregator on bags of tiles.

    What the data decides (size of features, what made them, intervals of time) is taken from the
    data module when training begins, and kept in checkpoints; other bags are refused later.

    Args:
        aggregator: name of one, e.g. ``bcos_gated_sum``; those that begin with ``bcos`` are exact.
        classes: names of classes, labels or grades; taken from the data when run by config.
        outcome: what is predicted, see :class:`pathology.data.bag_module.BagDataModule`; likewise.
        aggregator_args: further arguments of the aggregator, e.g. ``{"hidden": 128}``;
            ``expected_tiles`` of a gated sum is the median of training's bags when omitted.
        in_features: numbers per tile; from the data when omitted.
        bags: what made the bags; from the data when omitted.
        loss: of ``classes``, ``bce`` or ``ce``; ``bce`` for exact aggregators when omitted.
        ties: of ``cox``, what becomes of events at one time: ``efron`` or ``breslow``.
        intervals: of ``hazard``, how many.
        encoder: any timm model, B-cos or conventional, to be trained together with the aggregator
            on tiles as pixels.
        encoder_args: its further arguments, e.g. ``{"img_size": 96}``.
        init_from: checkpoint of a run on tiles whose weights the encoder starts from.
        stain_space: of an encoder with ``encoding: stain``, see
            :class:`bcos_vit.stain_space.StainSpace`.
        **optimisation: of :class:`Task`. With an encoder ``layer_decay`` is the factor on its
            learning rate, and ``freeze: backbone`` keeps it as it is.

    Raises:
        ValueError: an argument that makes no sense, or does not go with the others.
        WeightsError: ``init_from`` cannot be read, or is of another model.
    """

    model: SlideModel

    def __init__(
        self,
        aggregator: str,
        classes: list[str] | None = None,
        outcome: OutcomeName = "classes",
        aggregator_args: dict[str, Any] | None = None,
        in_features: int | None = None,
        bags: dict[str, Any] | None = None,
        loss: ClassLoss | None = None,
        ties: Ties = "efron",
        intervals: int = 4,
        encoder: str | None = None,
        encoder_args: dict[str, Any] | None = None,
        init_from: str | None = None,
        stain_space: dict[str, Any] | None = None,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.save_hyperparameters()
        self.classes, self.outcome = list(classes or []), outcome
        if loss is not None and outcome != "classes":
            raise ValueError(f"loss is of outcome classes, this one is {outcome}; got {loss!r}")
        if encoder is None:
            given = {
                "encoder_args": encoder_args,
                "init_from": init_from,
                "stain_space": stain_space,
                "layer_decay": self.hparams["layer_decay"],
                "freeze": self.hparams["freeze"],
            }
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name} is of an encoder, and none is trained; got {value!r}")
        self.loss_name: ClassLoss = loss or ("bce" if aggregator.startswith("bcos") else "ce")
        # What is wrong with names and values is said before data is looked at.
        self._metric = self._outcome().metric
        self._aggregator(in_features or 8)
        if encoder is not None:
            self._make(None)
        elif in_features is not None:
            self._make(in_features)

    # --- making the model ------------------------------------------------------------------------

    @property
    def is_made(self) -> bool:
        """Whether there is a model: without an encoder it takes the size of features."""
        return "model" in self._modules

    def _make(self, in_features: int | None) -> None:
        """The model, for features of this size or of its encoder."""
        encoder, encoding = None, None
        if in_features is None:
            encoder, encoding = self._encoder()
            in_features = encoder.dims
        self.model = SlideModel(self._aggregator(in_features), self._outcome(), encoder, encoding)

    def _outcome(self) -> Outcome:
        return make_outcome(
            self.outcome,  # type: ignore[arg-type]
            self.classes,
            loss=self.loss_name,
            ties=self.hparams["ties"],
            intervals=self.hparams["intervals"],
        )

    def _aggregator(self, in_features: int) -> Aggregator:
        name, arguments = self.hparams["aggregator"], self.hparams["aggregator_args"] or {}
        try:
            made = make_aggregator(name, in_features, self._outcome().outputs, **arguments)
        except TypeError as error:
            raise ValueError(f"aggregator_args {arguments} do not suit {name}: {error}") from error
        if getattr(made, "auxiliary_weight", 0) and self.outcome not in ("classes", "labels"):
            raise ValueError(
                f"{name} clusters tiles by classes, which outcome {self.outcome} has none of; give"
                " aggregator_args {auxiliary_weight: 0}"
            )
        return made

    def _encoder(self) -> tuple[PooledFeatures, TileEncoding]:
        options = self.hparams
        name, arguments = options["encoder"], dict(options["encoder_args"] or {})
        try:
            model = create_model(name, **arguments | {"num_classes": 0})
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"encoder_args {arguments} do not suit {name}: {error}") from error
        if arguments.get("pretrained"):
            # Read back, it has weights of its own.
            self.hparams["encoder_args"] = arguments | {"pretrained": False}
        if options["init_from"] is not None:
            start = read_checkpoint(options["init_from"])
            if start["hyper_parameters"].get("model") != name:
                raise WeightsError(
                    f"{options['init_from']} is of {start['hyper_parameters'].get('model')!r}, the"
                    f" encoder is {name!r}"
                )
            load_backbone(model, start, options["init_from"])
        return PooledFeatures(model), TileEncoding(model, options["stain_space"])

    def take_from(self, data: BagDataModule) -> None:
        """Learn from the data of a training what the model has to know, once.

        Raises:
            ManifestError: the data lacks something.
            ValueError: bags of pixels without an encoder, or of features with one.
        """
        if (data.in_features is None) != (self.hparams["encoder"] is not None):
            has = "pixels" if data.in_features is None else "features"
            want = "an encoder" if data.in_features is None else "no encoder"
            raise ValueError(f"the bags are of {has}: the model needs {want} (model.encoder)")
        if self.hparams["bags"] is None:
            self.hparams["bags"] = data.made_of()
            self._expect(data)
        self.check_data(data)
        if not self.is_made:
            self.hparams["in_features"] = data.in_features
            self._make(data.in_features)
        self.model.outcome.fit(data.truth("train"))

    def _expect(self, data: BagDataModule) -> None:
        """Have a gated sum begin as the mean over as many tiles as training's bags have."""
        given = self.hparams["aggregator_args"] or {}
        if AGGREGATORS[self.hparams["aggregator"]] is not BcosGatedSum or "expected_tiles" in given:
            return
        if self.is_made and self.hparams["encoder"] is None:
            return  # made by hand
        usual = max(2.0, float(np.median(data.dataset("train").sizes)))
        self.hparams["aggregator_args"] = given | {"expected_tiles": usual}
        if self.is_made:
            self.model.aggregator = self._aggregator(self.model.aggregator.in_features)

    def check_data(self, data: BagDataModule) -> None:
        """Refuse bags of other features or other tiles than those trained on.

        Raises:
            StampMismatchError: naming what differs.
        """
        wanted, got = self.hparams["bags"], data.made_of()
        if wanted is None or got == wanted:
            return
        if "features" in wanted and "features" in got:
            kind = FeatureKind.from_dict(got["features"])
            kind.check(data.features, FeatureKind.from_dict(wanted["features"]), "the model's")
        raise StampMismatchError(
            f"{data.manifest}: bags of {_words(got)}, the model was trained on {_words(wanted)};"
            " give bags that were made the same way"
        )

    def configure_callbacks(self) -> list[Callback]:
        """As :class:`Task`; an average of the weights is made right after this."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, BagDataModule):
            if self.trainer.state.fn == "fit":
                self.take_from(data)
                if self.model.outcome.whole_batch and data.batch_size * self.trainer.world_size < 2:
                    raise ValueError(
                        f"outcome {self.outcome} compares bags of a batch with one another; give"
                        " data.batch_size of at least 2, better 32"
                    )
            else:
                self.check_data(data)
        if not self.is_made:
            raise ValueError("give in_features, or train with a BagDataModule, which knows it")
        return super().configure_callbacks()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes, another aggregator or other bags."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get("hyper_parameters", {})
        for name in ("outcome", "aggregator", "encoder"):
            if stored.get(name, self.hparams[name]) != self.hparams[name]:
                raise WeightsError(
                    f"the checkpoint is of {name} {stored[name]!r}, this run's is"
                    f" {self.hparams[name]!r}"
                )
        theirs, ours = stored.get("bags"), self.hparams["bags"]
        if theirs is not None and ours is not None and theirs != ours:
            raise StampMismatchError(
                f"the checkpoint was trained on bags of {_words(theirs)}, these are of"
                f" {_words(ours)}; train anew"
            )

    # --- steps -----------------------------------------------------------------------------------

    @property
    def monitor(self) -> str:
        return f"val_{self._metric}"

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """What is reported of a batch of bags, ``(bags, logits)``."""
        _, outputs = self.model(batch)
        return self.model.outcome.logits(outputs)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        features, outputs = self.model(batch)
        outcome, aggregator = self.model.outcome, self.model.aggregator
        truth = {name: batch[name] for name in outcome.targets}
        if outcome.whole_batch and self.trainer.world_size > 1:
            # All devices work out the loss of all bags; the mean of their gradients is its own.
            outputs = self._of_all_devices(outputs, sync_grads=True)
            truth = {name: self._of_all_devices(x) for name, x in truth.items()}
        loss = outcome.loss(outputs, truth)
        if getattr(aggregator, "auxiliary_weight", 0):
            auxiliary: Any = aggregator.auxiliary_loss
            loss = loss + auxiliary(features, batch["present"], batch["label"])
        return loss

    def _of_all_devices(self, values: Tensor, sync_grads: bool = False) -> Tensor:
        """Values of bags from all devices, which have equally many."""
        gathered: Any = self.all_gather(values, sync_grads=sync_grads)
        together: Tensor = gathered.flatten(0, 1)
        return together

    def on_validation_epoch_start(self) -> None:
        self._seen: list[dict[str, Tensor]] = []

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        _, outputs = self.model(batch)
        kept = {name: batch[name] for name in (*self.model.outcome.targets, "index")}
        self._seen.append(kept | {"outputs": outputs.float()})

    def on_validation_epoch_end(self) -> None:
        seen, self._seen = self._seen, []
        # The two bags that Lightning tries before training may hold a single class.
        if self.trainer.sanity_checking or not seen:
            return
        truth = {name: torch.cat([part[name] for part in seen]) for name in seen[0]}
        if self.trainer.world_size > 1:
            truth = {name: self._of_all_devices(x) for name, x in truth.items()}
        index = truth.pop("index").cpu()
        # Devices get equally many bags; a few come twice.
        once = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
        truth = {name: x[once.to(x.device)] for name, x in truth.items()}
        outputs, outcome = truth.pop("outputs"), self.model.outcome
        loss = outcome.loss(outputs, truth)
        logits = outcome.logits(outputs).double().cpu()
        found = outcome.measure(logits, {name: x.cpu() for name, x in truth.items()})
        # The same on all devices, since all have seen everything.
        self.log_dict(
            {f"val_{name}": value for name, value in (found | {"loss": float(loss)}).items()},
            prog_bar=True,
            sync_dist=True,
        )

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> Tensor:
        """Logits ``(bags, logits)`` of a batch of bags.

        One per class or label; one per step between grades, that the grade is higher; the log risk
        of ``cox``; one per interval of ``hazard``.
        """
        logits: Tensor = self(batch)
        return logits.float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of classes, labels or grades ``(bags, classes)``; of survival the risk ``(bags,)``."""
        return self.model.outcome.scores(logits)


def _words(bags: dict[str, Any]) -> str:
    """What made bags, for people."""
    made = bags.get("features", bags)
    tiles = made["tiles"]
    text = f"tiles of {tiles['size_px']} px at {tiles['mpp']} um/px"
    return f"features of {made['encoder']} ({text})" if "features" in bags else text
