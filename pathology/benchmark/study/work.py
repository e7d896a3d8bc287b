"""The pieces of a study's work: each is done once, and found again."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bcos_vit import __version__
from bcos_vit.attribution import METHODS, Classifier, make_method
from pathology.benchmark.backbones import (
    Backbone,
    backbone_values,
    command,
    load_classifier,
    train,
)
from pathology.benchmark.backbones.training import VERSION as TRAINING_VERSION
from pathology.benchmark.slides.bags import VERSION as BAGS_VERSION
from pathology.benchmark.slides.study import VERSION as SLIDES_VERSION
from pathology.benchmark.slides.study import SlideStudy, read_slide_study, run_slides
from pathology.benchmark.study.cells import Cell, write_values
from pathology.benchmark.study.chosen import VERSION as CHOICE_VERSION
from pathology.benchmark.study.chosen import choose
from pathology.benchmark.study.config import ORACLE, Study
from pathology.benchmark.study.measures import GROUPS, METRICS, Subject, UnknownMaskError
from pathology.benchmark.study.measures.catalogue import undefined
from pathology.benchmark.study.plan import Training, Unit
from pathology.benchmark.study.variants import VERSION as VARIANTS_VERSION
from pathology.benchmark.study.variants import Variant, settings_going_on
from pathology.benchmark.tile_sets import TileSet, load_tile_set, make_maker, make_tile_set
from pathology.errors import PathologyError
from pathology.tasks.checkpoint import Run

MAPS = "maps.npz"
PICTURES_VERSION = BACKBONES_VERSION = 1
Tell = Callable[[str], None]
_MAKING = threading.Lock()
"""Networks that are trained side by side share the tile sets of variants."""


class BlockedError(Exception):
    """What the work needs could not be made, which is told where it failed."""


@dataclass(frozen=True)
class Place:
    """A study in its folder.

    Args:
        study: what is compared.
        out: folder of cells.
        device: torch's name of it.
    """

    study: Study
    out: Path
    device: str = "cpu"
    _kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept in memory, for other processes."""
        return {"study": self.study, "out": self.out, "device": self.device, "_kept": {}}

    # Tile sets

    def data_cell(self, data: str) -> Cell:
        """Of a tile set.

        Raises:
            ManifestError: the data that it is made of cannot be used.
        """
        if ("cell", data) not in self._kept:
            made_by = make_maker(self.study.data[data]).made_by()
            self._kept["cell", data] = Cell("data", data, dict(made_by))
        found: Cell = self._kept["cell", data]
        return found

    def make_data(self, data: str, tell: Tell) -> bool:
        """Make a tile set; False where it is there already."""
        folder = self.data_cell(data).folder(self.out)
        if folder.is_dir():
            load_tile_set(folder)
            return False
        make_tile_set(
            self.study.data[data],
            folder,
            lambda split, done, of: tell(f"{split} {done}/{of}"),
        )
        return True

    def tile_set(self, data: str) -> TileSet:
        """A tile set that is made.

        Raises:
            BlockedError: it is not.
        """
        if ("set", data) not in self._kept:
            try:
                self._kept["set", data] = load_tile_set(self.data_cell(data).folder(self.out))
            except PathologyError as error:
                raise BlockedError(f"tile set {data}") from error
        found: TileSet = self._kept["set", data]
        return found

    # Networks

    def backbone(self, name: str) -> Backbone:
        """A network of the study."""
        return next(each for each in self.study.backbones if each.name == name)

    def run_cell(self, training: Training) -> Cell:
        """Of a training; the folder holds its run."""
        plain = self.tile_set(training.data)
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
        return self.run_cell(training).folder(self.out)

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
        train(backbone, tiles, training.seed, folder, self._training_here(), tell)
        # A study has many runs, and what they would go on from is most of what they hold.
        for state in (Run(folder).last, Run(folder).previous):
            state.unlink(missing_ok=True)
        return True

    def training_command(self, training: Training) -> list[str]:
        """The words that train it, behind the program's name.

        Raises:
            BlockedError: as :meth:`train`.
        """
        backbone, tiles = self._as_trained(training)
        return command(backbone, tiles, training.seed, self.run(training), self._training_here())

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
        tiles, backbone = self.tile_set(training.data), self.backbone(training.backbone)
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
            before = Run(self._trained(replace(training, variant="")))
            settings = settings_going_on(backbone.settings(self.study.training), before)
            backbone = replace(backbone, training=settings)
        return backbone, tiles

    def _trained(self, training: Training) -> Path:
        if not self.is_trained(training):
            raise BlockedError(f"training {training.name}")
        return self.run(training)

    def checkpoint(self, training: Training) -> str:
        """What a trained network's weights are: the start of their file's SHA-256.

        Raises:
            BlockedError: it is not trained.
        """
        key = ("checkpoint", training)
        if key not in self._kept:
            weights = Run(self._trained(training)).best.read_bytes()
            self._kept[key] = hashlib.sha256(weights).hexdigest()[:16]
        found: str = self._kept[key]
        return found

    def classifier(self, training: Training) -> Classifier:
        """A trained network; the last few are kept in memory.

        Raises:
            BlockedError: it is not trained.
        """
        networks: dict[Training, Classifier] = self._kept.setdefault("networks", {})
        if training not in networks:
            while len(networks) > 8:
                networks.pop(next(iter(networks)))
            networks[training] = load_classifier(self._trained(training), self.device)
        return networks[training]

    # What networks are worth

    def backbone_cell(self, training: Training) -> Cell:
        """Of a network's accuracy and cost."""
        decides: dict[str, Any] = {
            "tiles": self.tile_set(training.data).stamp,
            "checkpoint": self.checkpoint(training),
            "device": self.device,
            "version": [BACKBONES_VERSION, __version__],
        }
        return Cell("backbones", training.name, decides)

    def measure_backbone(self, training: Training) -> bool:
        """Write a network's values; False where they are there already."""
        cell = self.backbone_cell(training)
        if cell.is_done(self.out):
            return False
        twin = next(
            (
                each.name
                for each in self.study.backbones
                if each.pair == self.backbone(training.backbone).pair
                and each.name != training.backbone
            ),
            None,
        )
        other = None if twin is None else replace(training, backbone=twin)
        values = backbone_values(
            self.run(training),
            self.tile_set(training.data),
            self.device,
            twin=self.run(other) if other is not None and self.is_trained(other) else None,
        )
        with cell.written(self.out) as draft:
            write_values(draft, values)
        return True

    # What maps are worth

    def group_cell(self, unit: Unit, group: str) -> Cell:
        """Of a group of metrics of a method on a network."""
        settings = self.study.metrics[group]
        needed = GROUPS[group].variants(settings)
        decides = self._of_unit(unit) | {
            "group": group,
            "settings": settings,
            "versions": [GROUPS[group].version, __version__],
            "examples": [self.study.examples, CHOICE_VERSION],
            "variants": {
                name: self.checkpoint(replace(unit.training, variant=name)) for name in needed
            },
        }
        if GROUPS[group].times:
            decides["device"] = self.device
        return Cell(f"methods/{group}", unit.name, decides)

    def pictures_cell(self, unit: Unit) -> Cell:
        """Of a method's maps of the tiles that the page shows."""
        decides = self._of_unit(unit) | {
            "pictures": self.study.pictures,
            "examples": [self.study.examples, CHOICE_VERSION],
            "version": [PICTURES_VERSION, __version__],
        }
        return Cell("pictures", unit.name, decides)

    def cells(self, unit: Unit) -> Iterator[tuple[str, Cell]]:
        """Of a unit, by group; those of its pictures as ``pictures``."""
        for group in unit.groups:
            yield group, self.group_cell(unit, group)
        if unit.pictures:
            yield "pictures", self.pictures_cell(unit)

    def _of_unit(self, unit: Unit) -> dict[str, Any]:
        return {
            "tiles": self.tile_set(unit.training.data).stamp,
            "checkpoint": self.checkpoint(unit.training),
            "method": unit.method.name,
            "method_settings": unit.method.settings,
            "method_version": getattr(METHODS[unit.method.name], "version", 1),
        }

    def subject(self, unit: Unit) -> Subject:
        """A method on a network with its tiles.

        Raises:
            UnsupportedMethodError: the method does not go with the network.
            BlockedError: something is not made.
        """
        data, training = unit.training.data, unit.training
        classifier = self.classifier(training)
        method = None
        if unit.method.name != ORACLE:
            method = make_method(unit.method.name, **unit.method.settings)
            method.check(classifier)
        counts = self.study.examples
        key = ("examples", data)
        if key not in self._kept:
            tiles = self.tile_set(data)
            self._kept[key] = (
                choose(tiles.split("test"), counts["test"]),
                choose(tiles.split("val"), counts["validation"]),
            )
        test, validation = self._kept[key]
        return Subject(
            classifier,
            method,
            self.tile_set(data),
            test,
            validation,
            torch.device(self.device),
            self.study.batch,
            load_variant=lambda name: self.classifier(replace(training, variant=name)),
        )

    def measure_group(self, subject: Subject, group: str, cell: Cell) -> None:
        """Write the values of a group of metrics."""
        try:
            values = GROUPS[group].measure(subject, **self.study.metrics[group])
        except UnknownMaskError as error:
            values = undefined(group, METRICS[group], str(error))
        with cell.written(self.out) as draft:
            write_values(draft, values)

    def keep_pictures(self, subject: Subject, cell: Cell) -> None:
        """Write maps of the first tiles that have evidence, each for its own class."""
        test = subject.test
        rows = np.arange(len(test))
        if subject.positive is not None:
            rows = np.flatnonzero(test.labels == subject.positive)
        rows = rows[: self.study.pictures]
        shown = test.take(rows)
        named = "confounder" if "confounder" in shown.masks else "evidence"
        nothing = np.zeros(shown.images.shape[:3], bool)
        maps = subject.explain(shown.images, shown.labels)
        with cell.written(self.out) as draft:
            np.savez_compressed(
                draft / MAPS,
                names=np.array(shown.names),
                images=shown.images,
                maps=maps.astype(np.float32),
                targets=np.array([subject.tile_set.classes[i] for i in shown.labels]),
                masks=shown.masks.get(named, nothing),
                unit=np.array("none" if subject.method is None else subject.method.unit),
            )

    # Slides

    def slides_cell(self, seed: int) -> Cell:
        """Of the part on slides."""
        settings = self._slide_study(seed)
        encoder = self._slide_encoder(seed)
        decides: dict[str, Any] = asdict(settings)
        del decides["device"]
        if encoder is not None:
            decides["encoder"] = self.checkpoint(encoder)
        elif (weights := Run(Path(settings.encoder)).best).is_file():  # a run; else a model's name
            decides["encoder"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        decides["versions"] = [SLIDES_VERSION, BAGS_VERSION, __version__]
        return Cell("slides", f"{self.study.name}-s{seed}", decides)

    def measure_slides(self, seed: int, tell: Tell) -> bool:
        """Write the values of the part on slides; False where they are there already."""
        cell = self.slides_cell(seed)
        if cell.is_done(self.out):
            return False

        def progress(steps: Iterable[Any], total: int, what: str) -> Iterable[Any]:
            for done, step in enumerate(steps):
                tell(f"{what} {done}/{total}")
                yield step

        values = run_slides(self._slide_study(seed), self.out / "cells" / "bags", progress)
        with cell.written(self.out) as draft:
            write_values(draft, values)
        return True

    def _slide_encoder(self, seed: int) -> Training | None:
        """The network of the study that encodes tiles of slides, if it is one of those."""
        named = self.study.slides["encoder"]
        if not isinstance(named, dict):
            return None
        return Training(named["data"], named["backbone"], seed)

    def _slide_study(self, seed: int) -> SlideStudy:
        encoder = self._slide_encoder(seed)
        words = {**self.study.slides, "seed": seed, "device": self.device}
        if encoder is not None:
            words["encoder"] = str(self._trained(encoder))
        return read_slide_study(words)
