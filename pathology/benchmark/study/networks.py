"""Networks of a study, trained once, with the variants that groups of metrics need."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bcos_vit.attribution import Classifier
from pathology.benchmark.backbones import Backbone, load_classifier
from pathology.benchmark.backbones import command as train_command
from pathology.benchmark.backbones import train as train_network
from pathology.benchmark.backbones.training import VERSION as TRAINING_VERSION
from pathology.benchmark.study.cells import BlockedError, Cell
from pathology.benchmark.study.config import Study
from pathology.benchmark.study.plan import Training
from pathology.benchmark.study.tile_sets import TileSets
from pathology.benchmark.study.variants import VERSION as VARIANTS_VERSION
from pathology.benchmark.study.variants import Variant, settings_going_on
from pathology.benchmark.tile_sets import TileSet
from pathology.tasks.checkpoint import Run

KEPT = 8
"""Networks in memory beside the one that is asked for."""
Tell = Callable[[str], None]
_MAKING = threading.Lock()
"""Networks that are trained side by side share the tile sets of variants."""


class Networks:
    """Of a study, by their training.

    Args:
        study: whose.
        out: folder of cells.
        device: torch's name of it.
        tile_sets: that they learn from.
    """

    def __init__(self, study: Study, out: Path, device: str, tile_sets: TileSets) -> None:
        self.study, self.out, self.device = study, out, device
        self.tile_sets = tile_sets
        self._checkpoints: dict[Training, str] = {}
        self._loaded: dict[Training, Classifier] = {}

    def backbone(self, name: str) -> Backbone:
        """A network of the study."""
        return next(each for each in self.study.backbones if each.name == name)

    def cell(self, training: Training) -> Cell:
        """Of a training; the folder holds its run."""
        plain = self.tile_sets.get(training.data)
        backbone = self.backbone(training.backbone)
        decides: dict[str, Any] = {
            "tiles": plain.stamp,
            "model": backbone.model,
            "model_args": dict(backbone.model_args),
            "training": backbone.settings(self.study.training),
            "seed": training.seed,
            "version": TRAINING_VERSION,
        }
        if training.variant:
            decides["variant"] = [training.variant, VARIANTS_VERSION]
        return Cell("runs", training.name, decides)

    def run(self, training: Training) -> Path:
        """Folder of a training, whether it is finished or not."""
        return self.cell(training).folder(self.out)

    def is_trained(self, training: Training) -> bool:
        """Whether it is finished."""
        return Run(self.run(training)).finished.is_file()

    def train(self, training: Training, tell: Tell) -> bool:
        """Train a network, or go on with it; False where it is trained already.

        Raises:
            BlockedError: its tile set is not made, or the network it goes on from is not trained.
            TrainingError: the verb failed.
        """
        if self.is_trained(training):
            return False
        backbone, tiles = self._as_trained(training)
        folder = self.run(training)
        train_network(backbone, tiles, training.seed, folder, self._training_here(), tell)
        # A study has many runs, and what they would go on from is most of what they hold.
        for state in (Run(folder).last, Run(folder).previous):
            state.unlink(missing_ok=True)
        return True

    def command(self, training: Training) -> list[str]:
        """The words that train it, behind the program's name.

        Raises:
            BlockedError: as :meth:`train`.
        """
        backbone, tiles = self._as_trained(training)
        return train_command(
            backbone, tiles, training.seed, self.run(training), self._training_here()
        )

    def _training_here(self) -> dict[str, Any]:
        """Settings of training, with the device where the verb would choose another."""
        kind, _, index = self.device.partition(":")
        here: dict[str, Any] = {}
        if kind == "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available()):
            here = {"trainer.accelerator": "cpu"}
        elif index:
            here = {"trainer.devices": [int(index)]}
        return here | self.study.training

    def _as_trained(self, training: Training) -> tuple[Backbone, TileSet]:
        """The network with its settings, and what it is trained on."""
        tiles, backbone = self.tile_sets.get(training.data), self.backbone(training.backbone)
        if not training.variant:
            return backbone, tiles
        variant = Variant(training.variant)
        made_of = {
            "of": tiles.stamp,
            "variant": [variant.name, VARIANTS_VERSION],
            "seed": training.seed,
        }
        cell = Cell("data", f"{training.data}-{variant.name}-s{training.seed}", made_of)
        with _MAKING:
            tiles = variant.make(tiles, cell.folder(self.out), training.seed)
        if variant.goes_on:
            before = Run(self.trained(replace(training, variant="")))
            settings = settings_going_on(backbone.settings(self.study.training), before)
            backbone = replace(backbone, training=settings)
        return backbone, tiles

    def trained(self, training: Training) -> Path:
        """Folder of a training that is finished.

        Raises:
            BlockedError: it is not.
        """
        if not self.is_trained(training):
            raise BlockedError(f"training {training.name}")
        return self.run(training)

    def checkpoint(self, training: Training) -> str:
        """What a trained network's weights are: the start of their file's SHA-256.

        Raises:
            BlockedError: it is not trained.
        """
        if training not in self._checkpoints:
            self._checkpoints[training] = weights_digest(Run(self.trained(training)).best)
        return self._checkpoints[training]

    def classifier(self, training: Training) -> Classifier:
        """A trained network; the last few are kept in memory.

        Raises:
            BlockedError: it is not trained.
        """
        if training not in self._loaded:
            while len(self._loaded) > KEPT:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[training] = load_classifier(self.trained(training), self.device)
        return self._loaded[training]


def weights_digest(path: Path) -> str:
    """What trained weights are: the start of their file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
