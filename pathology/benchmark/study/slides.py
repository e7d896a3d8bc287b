"""The part of a study on slides: once for each seed."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bcos_vit import __version__
from pathology.benchmark.slides.bags import VERSION as BAGS_VERSION
from pathology.benchmark.slides.study import VERSION as SLIDES_VERSION
from pathology.benchmark.slides.study import SlideStudy, read_slide_study, run_slides
from pathology.benchmark.study.cells import Cell, write_values
from pathology.benchmark.study.config import Study
from pathology.benchmark.study.networks import Networks, weights_digest
from pathology.benchmark.study.plan import Training
from pathology.tasks.checkpoint import Run


class Slides:
    """Aggregators of a study and what explains them.

    Args:
        study: whose.
        out: folder of cells.
        device: torch's name of it.
        networks: of the study.
    """

    def __init__(self, study: Study, out: Path, device: str, networks: Networks) -> None:
        self.study, self.out, self.device = study, out, device
        self.networks = networks

    def cell(self, seed: int) -> Cell:
        """Of the part on slides."""
        settings = self._settings(seed)
        encoder = self._encoder(seed)
        decides: dict[str, Any] = asdict(settings)
        del decides["device"]
        if encoder is not None:
            decides["encoder"] = self.networks.checkpoint(encoder)
        elif (weights := Run(Path(settings.encoder)).best).is_file():  # a run; else a model's name
            decides["encoder"] = weights_digest(weights)
        decides["versions"] = [SLIDES_VERSION, BAGS_VERSION, __version__]
        return Cell("slides", f"{self.study.name}-s{seed}", decides)

    def measure(self, seed: int, tell: Callable[[str], None]) -> bool:
        """Write the values of the part on slides; False where they are there already."""
        cell = self.cell(seed)
        if cell.is_done(self.out):
            return False

        def progress(steps: Iterable[Any], total: int, what: str) -> Iterable[Any]:
            for done, step in enumerate(steps):
                tell(f"{what} {done}/{total}")
                yield step

        values = run_slides(self._settings(seed), self.out / "cells" / "bags", progress)
        with cell.written(self.out) as draft:
            write_values(draft, values)
        return True

    def _encoder(self, seed: int) -> Training | None:
        """The network of the study that encodes tiles of slides, if it is one of those."""
        named = self.study.slides["encoder"]
        if not isinstance(named, dict):
            return None
        return Training(named["data"], named["backbone"], seed)

    def _settings(self, seed: int) -> SlideStudy:
        encoder = self._encoder(seed)
        words = {**self.study.slides, "seed": seed, "device": self.device}
        if encoder is not None:
            words["encoder"] = str(self.networks.trained(encoder))
        return read_slide_study(words)
