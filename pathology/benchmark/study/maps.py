"""What maps are worth, group by group of metrics, and the maps that the page shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bcos_vit import __version__
from bcos_vit.attribution import METHODS, make_method
from pathology.benchmark.study.cells import Cell, write_values
from pathology.benchmark.study.chosen import VERSION as CHOICE_VERSION
from pathology.benchmark.study.chosen import choose
from pathology.benchmark.study.config import ORACLE, Study
from pathology.benchmark.study.measures import GROUPS, METRICS, Subject, UnknownMaskError
from pathology.benchmark.study.measures.catalogue import undefined
from pathology.benchmark.study.networks import Networks
from pathology.benchmark.study.plan import Unit
from pathology.benchmark.tile_sets import Examples

MAPS = "maps.npz"
PICTURES_VERSION = 1


class Maps:
    """Of the methods of a study on its networks.

    Args:
        study: whose.
        out: folder of cells.
        device: torch's name of it.
        networks: of the study.
    """

    def __init__(self, study: Study, out: Path, device: str, networks: Networks) -> None:
        self.study, self.out, self.device = study, out, device
        self.networks = networks
        self._examples: dict[str, tuple[Examples, Examples]] = {}

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
                name: self.networks.checkpoint(replace(unit.training, variant=name))
                for name in needed
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
            "tiles": self.networks.tile_sets.get(unit.training.data).stamp,
            "checkpoint": self.networks.checkpoint(unit.training),
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
        classifier = self.networks.classifier(training)
        method = None
        if unit.method.name != ORACLE:
            method = make_method(unit.method.name, **unit.method.settings)
            method.check(classifier)
        counts, tiles = self.study.examples, self.networks.tile_sets.get(data)
        if data not in self._examples:
            self._examples[data] = (
                choose(tiles.split("test"), counts["test"]),
                choose(tiles.split("val"), counts["validation"]),
            )
        test, validation = self._examples[data]
        return Subject(
            classifier,
            method,
            tiles,
            test,
            validation,
            torch.device(self.device),
            self.study.batch,
            load_variant=lambda name: self.networks.classifier(replace(training, variant=name)),
        )

    def measure(self, subject: Subject, group: str, cell: Cell) -> None:
        """Write the values of a group of metrics."""
        try:
            values = GROUPS[group].measure(subject, **self.study.metrics[group])
        except UnknownMaskError as error:
            values = undefined(group, METRICS[group], str(error))
        with cell.written(self.out) as draft:
            write_values(draft, values)

    def keep_pictures(self, subject: Subject, cell: Cell) -> None:
        """Write maps of the first tiles that have evidence, each for its own class.

        Of the oracle nothing where the tile set has no masks.
        """
        test = subject.test
        rows = np.arange(len(test))
        if subject.positive is not None:
            rows = np.flatnonzero(test.labels == subject.positive)
        rows = rows[: self.study.pictures]
        shown = test.take(rows)
        named = "confounder" if "confounder" in shown.masks else "evidence"
        nothing = np.zeros(shown.images.shape[:3], bool)
        try:
            maps = subject.explain(shown.images, shown.labels)
        except UnknownMaskError:
            maps = None
        with cell.written(self.out) as draft:
            if maps is None:
                return
            np.savez_compressed(
                draft / MAPS,
                names=np.array(shown.names),
                images=shown.images,
                maps=maps.astype(np.float32),
                targets=np.array([subject.tile_set.classes[i] for i in shown.labels]),
                masks=shown.masks.get(named, nothing),
                unit=np.array("none" if subject.method is None else subject.method.unit),
            )
