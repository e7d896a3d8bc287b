"""One slide of ``pathology explain``: what is missing of its targets is made in one pass."""

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.data.slide_list import slide_mpp
from pathology.errors import ManifestError

if TYPE_CHECKING:
    from pathology.explain.slide import SlideExplanation
    from pathology.runs.layering import Layering
    from pathology.runs.scorers import Explainer
    from pathology.slides import Slide
    from pathology.stain import StainFolder
    from pathology.tiling import TileGrid

PREDICTED = "predicted"
"""The folder of a target that the model chooses."""
COMPARISON = "comparison.pdf"
"""Beside the folders of a slide's targets: all that were asked for, in one figure."""


@dataclass(frozen=True)
class SlideExplainer:
    """Explains a slide, for :func:`pathology.cli.cohort.each_slide`.

    Args:
        explainer: a run.
        run: its name.
        tiles: folder of the slides' grids.
        out: folder for the explanations.
        targets: what to explain; the class of the highest score when empty.
        out_mpp: micrometres per pixel of the maps.
        detail: share that is taken apart, see :func:`pathology.explain.slide.explain_targets`.
        batch_size: tiles per pass through the model.
        formats: further files to write.
        calibration: what logits were divided by, where they were.
        profiles: stains of the slides, for a run trained on normalised tiles.
        overwrite: whether explanations made otherwise are replaced.
        layering: whose mean is explained, and what it is held against; the run alone when omitted.
    """

    explainer: "Explainer"
    run: str
    tiles: Path
    out: Path
    targets: list[str]
    out_mpp: float
    detail: float
    batch_size: int
    formats: list[str] = field(default_factory=list)
    calibration: dict[str, Any] | None = None
    profiles: "StainFolder | None" = None
    overwrite: bool = False
    layering: "Layering | None" = None

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
            self.explainer.check_tiles(grid.spec, str(path))
            if self.layering:
                self.layering.check_tiles(grid.spec, str(path))
            stain = self.profiles.profile(name, slide.stamp(), colour) if self.profiles else None
            lines, missing = [], {}
            folders = self._folders(name)
            for target, folder in folders.items():
                settings = self.settings(grid, target, stain)
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

        classes = self.explainer.scorer.classes
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
        from pathology.explain.layers.members import Member
        from pathology.explain.results.write import write_results
        from pathology.outputs import complete_folder

        normaliser = self.profiles.normaliser() if self.profiles else None
        with ExitStack() as open_folders:
            drafts = [
                open_folders.enter_context(complete_folder(folder))
                for folder, _ in missing.values()
            ]
            stitch = drafts[0] / "stitch"
            alone = [Member(self.run, self.explainer.scorer, grid)]
            results = explain_layers(
                slide,
                self.layering.members(grid) if self.layering else alone,
                [target for target in missing if target is not None],
                out_mpp=self.out_mpp,
                batch_size=self.batch_size,
                detail=self.detail,
                seeds=self.layering.seeds if self.layering else (),
                scratch=stitch,
                progress=progress,
                normalise=partial(normaliser, profiles=stain) if normaliser else None,
            )
            for result, draft, (_, settings) in zip(results, drafts, missing.values(), strict=True):
                provenance = self.provenance(result, slide, grid, settings, stain)
                write_results(result, slide, draft, settings, provenance, self.formats)
            shutil.rmtree(stitch)
            # Of what is about to be replaced; it is drawn again once there are two to compare.
            drafts[0].with_name(COMPARISON).unlink(missing_ok=True)
        return [
            "\n".join([str(folder / "report.html"), _indented(result)])
            for result, (folder, _) in zip(results, missing.values(), strict=True)
        ]

    def settings(self, grid: "TileGrid", target: str | None, stain: Any) -> dict[str, Any]:
        """What decides the numbers of an explanation."""
        trained = self.explainer.trained
        return {
            "slide": grid.source.stamp,
            "slide_mpp": list(grid.source.mpp),
            "checkpoint": trained.checkpoint,
            "tiles": grid.spec.to_dict(),
            "tile_positions": hashlib.sha256(grid.boxes().tobytes()).hexdigest()[:16],
            "out_mpp": self.out_mpp,
            "depth": self.explainer.scorer.depth,
            "detail": self.detail,
            "target": target,
            **self.explainer.settings,
            "calibration": self.calibration,
            "layers": self.layering and self.layering.settings,
            "stain": stain and {"target": trained.stain, "profile": stain.digest()},
        }

    def provenance(
        self,
        result: "SlideExplanation",
        slide: "Slide",
        grid: "TileGrid",
        settings: dict[str, Any],
        stain: Any,
    ) -> dict[str, str]:
        """The same and more, in words for the report."""
        import datetime

        import bcos_vit

        spec, told = grid.spec, {}
        if self.profiles and stain:
            told["stains"] = (
                f"normalised by {stain.method} to {self.profiles.target.name}, profile"
                f" {stain.digest()}"
            )
        return {
            **self.explainer.words,
            **(self.layering.words(result) if self.layering else {}),
            **_input(self.explainer.scorer.encoding, result),
            "run": self.run,
            "checkpoint": self.explainer.trained.checkpoint,
            "slide file": slide.path.name if slide.path else "in memory",
            "slide stamp": grid.source.stamp,
            "slide resolution": f"{slide.mpp.x:.5g} x {slide.mpp.y:.5g} µm/px ({slide.mpp_source})",
            "tiles": f"{len(grid)} of {spec.size_px} px at {spec.mpp:g} µm/px,"
            f" overlap {spec.overlap_px} px",
            "map": f"{settings['out_mpp']:g} µm/px",
            "depth": _depth(result, spec.mpp * spec.size_px),
            **_undivided(result),
            "largest gap of a tile": f"{result.tiles['gap'].max():.1e} logits",
            **_calibration(settings["calibration"]),
            "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "version": f"bcos-pathology {bcos_vit.__version__}",
            **told,
        }


def _input(encoding: Any, result: "SlideExplanation") -> dict[str, str]:
    """What the model sees, and what the map says of each stain where it tells them apart."""
    if not hasattr(encoding, "name"):
        return {}  # a function of somebody else's
    if encoding.stain_space is None:
        return {"input": encoding.name}
    told = {"input": f"stain space: {encoding.stain_space}"}
    if not result.stains:
        return told
    names = {"undivided": "undivided tiles"}
    parts = [f"{names.get(name, name)} {part:+.6f}" for name, part in result.stain_sums.items()]
    return told | {"map and cut off by stain": f"{', '.join(parts)} logits"}


def _calibration(numbers: dict[str, Any] | None) -> dict[str, str]:
    """What the logits were divided by, for the report."""
    if numbers is None:
        return {}
    return {"calibrated": "; ".join(f"{what} {values}" for what, values in numbers.items())}


def _undivided(result: "SlideExplanation") -> dict[str, str]:
    """What of the map is told by whole tiles only."""
    part = result.ledger.undivided
    if part is None:
        return {}
    return {
        "undivided": f"{part.tiles} tiles, each spread evenly: {part.net:+.6f} logits of the map,"
        f" {part.absolute:.6f} without signs"
    }


def _depth(result: "SlideExplanation", tile_um: float) -> str:
    """Where the explanation stops, and how large a place is there."""
    rows, columns = result.places
    if result.depth == "pixels":
        return f"pixels of the tiles, {rows} x {columns}"
    return (
        f"{result.depth}, {rows} x {columns} places per tile, each {tile_um / columns:.3g} µm wide"
        " on the map; what a place stands for reaches further. Pixels and their channels are not"
        " told apart"
    )


def progress(batches: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    """A bar that goes when it is done."""
    from tqdm import tqdm

    return tqdm(batches, total=total, desc=what, unit="batch", leave=False)


def _indented(result: "SlideExplanation") -> str:
    lines = [f"score for {result.target}", *str(result.ledger).splitlines()]
    return "\n".join(f"    {line}" for line in lines)
