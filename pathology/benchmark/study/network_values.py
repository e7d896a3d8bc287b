"""What networks are worth: accuracy, calibration and cost, measured once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from bcos_vit import __version__
from pathology.benchmark.backbones import backbone_values
from pathology.benchmark.study.cells import Cell, write_values
from pathology.benchmark.study.config import Study
from pathology.benchmark.study.networks import Networks
from pathology.benchmark.study.plan import Training

VERSION = 1


class NetworkValues:
    """Of the networks of a study.

    Args:
        study: whose.
        out: folder of cells.
        device: torch's name of it.
        networks: of the study.
    """

    def __init__(self, study: Study, out: Path, device: str, networks: Networks) -> None:
        self.study, self.out, self.device = study, out, device
        self.networks = networks

    def cell(self, training: Training) -> Cell:
        """Of a network's accuracy and cost."""
        decides: dict[str, Any] = {
            "tiles": self.networks.tile_sets.get(training.data).stamp,
            "checkpoint": self.networks.checkpoint(training),
            "device": self.device,
            "version": [VERSION, __version__],
        }
        return Cell("backbones", training.name, decides)

    def measure(self, training: Training) -> bool:
        """Write a network's values; False where they are there already."""
        cell = self.cell(training)
        if cell.is_done(self.out):
            return False
        twin = next(
            (
                each.name
                for each in self.study.backbones
                if each.pair == self.networks.backbone(training.backbone).pair
                and each.name != training.backbone
            ),
            None,
        )
        other = None if twin is None else replace(training, backbone=twin)
        values = backbone_values(
            self.networks.run(training),
            self.networks.tile_sets.get(training.data),
            self.device,
            twin=self.networks.run(other)
            if other is not None and self.networks.is_trained(other)
            else None,
        )
        with cell.written(self.out) as draft:
            write_values(draft, values)
        return True
