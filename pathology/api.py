"""The short way in Python: a slide, its tiles, a trained run, and why its score is what it is.

::

    run = load_run("runs/first")
    with open_slide("case_001.svs") as slide:
        grid = TileGrid.load("tiles/case_001.parquet")
        result = explain_slide(slide, grid, run, "tumour")
    result.save("explained/case_001/tumour")
    show("case_001.svs", result, run="runs/first")  # in a notebook

The same as ``pathology explain``, and refused for the same reasons: tiles of another slide, or of
another kind than the run was trained on, give no numbers. What is explained here is saved there,
and the other way round. For models of your own see :mod:`pathology.explain`.
"""

import atexit
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pathology.cli.explain_slide import progress
from pathology.explain.layers.explain import explain_layers
from pathology.explain.results.shown import write_comparison
from pathology.explain.results.stored import StoredExplanation, load_explanation
from pathology.explain.slide import SlideExplanation
from pathology.runs.as_arguments import as_arguments
from pathology.runs.encoder_choice import EncoderChoice
from pathology.runs.layering import Layering
from pathology.runs.loaded_runs import LoadedRuns, date_made
from pathology.runs.ready_run import ReadyRun, ready_run
from pathology.runs.scorers import Explainer
from pathology.slides import Slide, open_slide
from pathology.stain import StainFolder
from pathology.tiling import TileGrid, TileSpec, tile_slide
from pathology.viewer.notebook.show import show

__all__ = [
    "EncoderChoice",
    "LoadedRun",
    "SlideExplanation",
    "StoredExplanation",
    "TileGrid",
    "TileSpec",
    "explain_slide",
    "explain_targets",
    "load_explanation",
    "load_run",
    "open_slide",
    "show",
    "tile_slide",
    "write_comparison",
]


@dataclass(frozen=True, repr=False)
class LoadedRun:
    """A trained run, ready to explain slides; made by :func:`load_run`.

    Args:
        name: of its folder.
        explainer: model, and what makes a slide's score.
        calibration: what its logits are divided by, where they are.
        profiles: stains of the slides, where it was trained on normalised tiles.
    """

    name: str
    explainer: Explainer
    calibration: dict[str, Any] | None = None
    profiles: StainFolder | None = None

    @property
    def ready(self) -> ReadyRun:
        """The same, as the verb has it."""
        return ReadyRun(self.name, self.explainer, self.calibration)

    @property
    def classes(self) -> list[str]:
        """What can be explained; differences of two as well, ``"a - b"``."""
        return list(self.explainer.scorer.classes)

    def __repr__(self) -> str:
        words = ", ".join(f"{name} {what}" for name, what in self.explainer.words.items())
        return f"LoadedRun({self.name!r}, classes {', '.join(self.classes)}, {words})"


def load_run(
    run: str | Path,
    *,
    depth: str = "pixels",
    pooling: str | None = None,
    encoder: str | EncoderChoice | None = None,
    calibrated: bool = False,
    stains: str | Path | None = None,
    device: str = "auto",
) -> LoadedRun:
    """Load a run that ``pathology train`` wrote, to explain slides with it.

    Args:
        run: its folder, or a checkpoint; ``:raw`` behind it takes the weights that were trained
            rather than their moving average.
        depth: where explanations stop: ``"pixels"``, a layer by name, ``"head"`` or ``"tiles"``;
            the deeper, the quicker and the coarser.
        pooling: how a slide's score weighs tile logits, ``"mean"`` when omitted, or ``"top50"``.
        encoder: for a run on features of slides, what made these: a run, a timm name, or an
            :class:`EncoderChoice` with its weights.
        calibrated: explain logits as ``pathology calibrate`` made them.
        stains: folder of the slides' stain profiles, for a run that was trained on normalised
            tiles; the run's own when omitted.
        device: ``"auto"`` is the GPU if there is one.

    Raises:
        ManifestError: there is no such run, or an encoder or stain profiles are needed.
        NotExplainableError: the model is not dynamic-linear as far as ``depth`` asks.
        StampMismatchError: another encoder, or stains of another target, than in training.
        ValueError: a depth, pooling or device that there is not, or of no use to the run.
        WeightsError: the checkpoint cannot be used.
    """
    with as_arguments():
        ready = ready_run(
            run,
            device=device,
            calibrated=calibrated,
            pooling=pooling,
            depth=depth,
            choice=EncoderChoice(encoder) if isinstance(encoder, str) else encoder,
        )
        trained = ready.explainer.trained
        profiles = trained.check_stains(stains or trained.stains)
    return LoadedRun(ready.name, ready.explainer, ready.calibration, profiles)


def explain_slide(
    slide: Slide, grid: TileGrid, run: LoadedRun, target: str | None = None, **options: Any
) -> SlideExplanation:
    """Explain a slide's score for one target.

    Args:
        slide: the slide, open.
        grid: its tiles.
        run: what gives it a score.
        target: a class, or a difference as ``"tumour - normal"`` or ``"tumour - mean"``; the class
            of the highest score when omitted.
        options: of :func:`explain_targets`.

    Raises:
        LedgerError, NoTissueError, StampMismatchError, ValueError: as :func:`explain_targets`.
    """
    targets = [] if target is None else [target]
    (explanation,) = explain_targets(slide, grid, run, targets, **options)
    return explanation


def explain_targets(
    slide: Slide,
    grid: TileGrid,
    run: LoadedRun,
    targets: Sequence[str] = (),
    *,
    out_mpp: float = 8.0,
    detail: float = 1.0,
    members: Sequence[LoadedRun] = (),
    jitter: int = 1,
    null: int = 0,
    batch_size: int = 16,
    scratch: str | Path | None = None,
    quiet: bool = False,
) -> list[SlideExplanation]:
    """Explain a slide's score for several targets in one pass over its tiles.

    Maps lie on disk, as raw floats. Keep an explanation as long as you use its maps, or ``save``
    it: what lies in a temporary folder goes with it.

    Args:
        slide: the slide, open.
        grid: its tiles.
        run: what gives it a score.
        targets: classes and differences; the class of the highest score when there is none.
        out_mpp: micrometres per pixel of the maps.
        detail: share of the tiles' absolute contributions that is taken apart, the strongest tiles
            first; the others are spread evenly over themselves.
        members: further runs: the mean score of all is explained, and ``layers`` of the result
            say where their maps differ.
        jitter: shifts of the grid that are averaged likewise, the grid as it is among them.
        null: models of random weights that the map is held against, at least 2, in ``layers``.
        batch_size: tiles per pass through the model.
        scratch: folder for the maps, which is left alone; a temporary one when omitted.
        quiet: no progress bars.

    Returns:
        An explanation per target, in order.

    Raises:
        LedgerError: a map does not account for its score.
        NoTissueError: there are no tiles.
        StampMismatchError: tiles of another slide, or of another kind than a run was trained on;
            members trained on other stains.
        ValueError: a target is no class; members of other classes or the same weights; a number
            that there cannot be.
    """
    if isinstance(targets, str):
        raise TypeError(f"targets must be a list of names, got {targets!r}; [{targets!r}] is one")
    if not (0 < out_mpp < float("inf") and batch_size >= 1):
        raise ValueError(
            f"out_mpp and batch_size must be positive and finite, got {out_mpp} and {batch_size}"
        )
    grid.check_slide(slide)
    profiles = run.profiles
    with as_arguments():
        layering = Layering([each.ready for each in (run, *members)], jitter, null)
    layering.check_tiles(grid.spec, f"the tiles of {slide.slide_id}")
    colour, stain = grid.spec.colour, None
    if profiles is not None:
        stain = profiles.profile(slide.slide_id, slide.stamp(), colour)
    loaded, made = LoadedRuns(layering, profiles), date_made()
    folder = Path(scratch) if scratch is not None else _temporary()
    found = explain_layers(
        slide,
        layering.members(grid),
        targets,
        seeds=layering.seeds,
        out_mpp=out_mpp,
        batch_size=batch_size,
        detail=detail,
        scratch=folder,
        normalise=None if profiles is None else partial(profiles.normaliser(), profiles=stain),
        progress=_silent if quiet else progress,
    )
    results = []
    for number, result in enumerate(found):
        target = targets[number] if targets else None
        settings = loaded.settings(grid, target, stain, out_mpp=out_mpp, detail=detail)
        provenance = loaded.provenance(result, slide, grid, settings, stain, made)
        results.append(replace(result, settings=settings, provenance=provenance))
        if scratch is None:
            weakref.finalize(result.stitched, shutil.rmtree, result.stitched.folder, True)
    return results


def _silent(batches: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    return batches


def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pathology-explain-"))
    atexit.register(shutil.rmtree, folder, True)
    return folder
