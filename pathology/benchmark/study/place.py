"""A study in its folder: the pieces of its work, each done once and found again."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pathology.benchmark.study.config import Study
from pathology.benchmark.study.maps import Maps
from pathology.benchmark.study.network_values import NetworkValues
from pathology.benchmark.study.networks import Networks
from pathology.benchmark.study.slides import Slides
from pathology.benchmark.study.tile_sets import TileSets


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

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept in memory, for other processes."""
        return {"study": self.study, "out": self.out, "device": self.device}

    @cached_property
    def tile_sets(self) -> TileSets:
        """What networks learn from and maps are of."""
        return TileSets(self.study, self.out)

    @cached_property
    def networks(self) -> Networks:
        """What is explained."""
        return Networks(self.study, self.out, self.device, self.tile_sets)

    @cached_property
    def network_values(self) -> NetworkValues:
        """What networks are worth."""
        return NetworkValues(self.study, self.out, self.device, self.networks)

    @cached_property
    def maps(self) -> Maps:
        """What maps are worth."""
        return Maps(self.study, self.out, self.device, self.networks)

    @cached_property
    def slides(self) -> Slides:
        """The part on slides."""
        return Slides(self.study, self.out, self.device, self.networks)
