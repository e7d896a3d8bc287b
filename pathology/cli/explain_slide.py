"""One slide of ``pathology explain``: what is missing of its targets is made in one pass."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.counted import counted
from pathology.data.slide_list import slide_mpp
from pathology.errors import ManifestError, StampMismatchError
from pathology.runs.loaded_runs import RunsChoice, date_made

if TYPE_CHECKING:
    from pathology.explain.slide import Progress, SlideExplanation
    from pathology.runs.loaded_runs import LoadedRuns
    from pathology.slides import Slide
    from pathology.tiling import TileGrid

PREDICTED = "predicted"
"""The folder of a target that the model chooses."""
COMPARISON = "comparison.pdf"
"""Beside the folders of a slide's targets: all that were asked for, in one figure."""


@dataclass(frozen=True)
class SlideExplainer:
    """Explains a slide; the runs are loaded once per process, when first asked for.

    Args:
        runs: what explains.
        tiles: folder of the slides' grids.
        out: folder for the explanations.
        targets: what to explain; the class of the highest score when empty.
        out_mpp: micrometres per pixel of the maps.
        detail: share that is taken apart, see :func:`pathology.explain.slide.explain_targets`.
        batch_size: tiles per pass through the model.
        formats: further files to write.
        overwrite: whether explanations made otherwise are replaced.
        made: when, as results say it.
        bars: progress within a slide is shown.
        wanted: digest of the runs, as the process that sends this has loaded them.
        here: the runs, where this process has loaded them.
    """

    runs: RunsChoice
    tiles: Path
    out: Path
    targets: list[str]
    out_mpp: float
    detail: float
    batch_size: int
    formats: list[str] = field(default_factory=list)
    overwrite: bool = False
    made: str = field(default_factory=date_made)
    bars: bool = True
    wanted: str | None = None
    here: "LoadedRuns | None" = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what was loaded: every process loads its own."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"here": None}

    @cached_property
    def loaded(self) -> "LoadedRuns":
        """The runs of this process.

        Raises:
            StampMismatchError: they are not those that the run began with.
        """
        if self.here is not None:
            return self.here
        loaded = self.runs.load()
        if self.wanted is not None and loaded.digest() != self.wanted:
            raise StampMismatchError(
                f"{', '.join(self.runs.names)}: weights, calibration or stain target have changed"
                " since this run began, or are others on this machine; run it again"
            )
        return loaded

    def __call__(self, row: dict[str, Any]) -> str:
        """Explain one slide; a line of where, with its ledger, for every target."""
        from pathology.explain.results.shown import write_comparison
        from pathology.explain.results.stored import load_explanation
        from pathology.explain.results.write import check_record, check_source, stored_record
        from pathology.outputs import remove_scratch
        from pathology.slides import open_slide
        from pathology.tiling import TileGrid

        name = str(row["slide_id"])
        path = self.tiles / f"{name}.parquet"
        if not path.is_file():
            raise ManifestError(f"{path}: no tiles of slide {name!r}; run `pathology tile` first")
        colour = TileGrid.load(path).spec.colour
        with open_slide(row["path"], slide_mpp(row), colour=colour) as slide:
            check_source(slide, self.formats)
            grid = TileGrid.load(path, slide=slide)
            self.loaded.layering.check_tiles(grid.spec, str(path))
            profiles = self.loaded.profiles
            stain = profiles.profile(name, slide.stamp(), colour) if profiles else None
            lines, missing = [], {}
            folders = self._folders(name)
            for target, folder in folders.items():
                settings = self.loaded.settings(
                    grid, target, stain, out_mpp=self.out_mpp, detail=self.detail
                )
                if folder.exists() and self.overwrite:
                    stored_record(folder)  # replace explanations, nothing else
                elif folder.exists():
                    check_record(folder, settings, self.formats)
                    remove_scratch(folder)  # of a replacement that was killed
                    lines.append(
                        f"{folder / 'report.html'}: made before by the same model and settings"
                    )
                    continue
                missing[target] = (folder, settings)
            if missing:
                lines += self._make(slide, grid, stain, missing)
        figure = self.out / name / COMPARISON
        if len(folders) > 1 and (missing or not figure.exists()):
            write_comparison([load_explanation(folder) for folder in folders.values()], figure)
            lines.append(f"{figure}: all of them on one scale")
        return "\n".join(lines)

    def _folders(self, name: str) -> dict[str | None, Path]:
        """Where each target goes; None is what the model chooses."""
        from pathology.explain.targets import parse_target

        classes = self.loaded.explainer.scorer.classes
        if not self.targets:
            return {None: self.out / name / PREDICTED}
        return {
            target: self.out / name / parse_target(target, classes).folder
            for target in self.targets
        }

    def _make(
        self,
        slide: "Slide",
        grid: "TileGrid",
        stain: Any,
        missing: dict[str | None, tuple[Path, dict[str, Any]]],
    ) -> list[str]:
        """Explain the targets that are missing, and write each to its folder."""
        from pathology.explain.layers.explain import explain_layers
        from pathology.explain.results.write import write_results
        from pathology.outputs import complete_folder

        layering, profiles = self.loaded.layering, self.loaded.profiles
        normaliser = profiles.normaliser() if profiles else None
        with ExitStack() as open_folders:
            drafts = [
                open_folders.enter_context(complete_folder(folder))
                for folder, _ in missing.values()
            ]
            stitch = drafts[0] / "stitch"
            results = explain_layers(
                slide,
                layering.members(grid),
                [target for target in missing if target is not None],
                out_mpp=self.out_mpp,
                batch_size=self.batch_size,
                detail=self.detail,
                seeds=layering.seeds,
                scratch=stitch,
                progress=self._progress,
                normalise=partial(normaliser, profiles=stain) if normaliser else None,
            )
            for result, draft, (_, settings) in zip(results, drafts, missing.values(), strict=True):
                provenance = self.loaded.provenance(result, slide, grid, settings, stain, self.made)
                write_results(result, slide, draft, settings, provenance, self.formats)
            shutil.rmtree(stitch)
            # Of what is about to be replaced; it is drawn again once there are two to compare.
            drafts[0].with_name(COMPARISON).unlink(missing_ok=True)
        return [
            "\n".join([str(folder / "report.html"), _indented(result)])
            for result, (folder, _) in zip(results, missing.values(), strict=True)
        ]

    @property
    def _progress(self) -> "Progress":
        """What batches go through."""

        def told(batches: Iterable[Any], total: int, what: str) -> Iterable[Any]:
            return progress(counted(batches), total, what) if self.bars else counted(batches)

        return told

    def digest(self) -> str:
        """Fingerprint of all that decides results, but the slide and its tiles; 16 hex digits."""
        values = {
            "runs": self.wanted or self.loaded.digest(),
            "targets": self.targets,
            "out_mpp": self.out_mpp,
            "detail": self.detail,
            "formats": sorted(self.formats),
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def progress(batches: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    """A bar that goes when it is done."""
    from tqdm import tqdm

    return tqdm(batches, total=total, desc=what, unit="batch", leave=False)


def _indented(result: "SlideExplanation") -> str:
    lines = [f"score for {result.target}", *str(result.ledger).splitlines()]
    return "\n".join(f"    {line}" for line in lines)
