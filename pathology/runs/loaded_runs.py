"""The runs that explain slides together: which they are, and what a process has loaded of them."""

import datetime
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.runs.encoder_choice import EncoderChoice

if TYPE_CHECKING:
    from pathology.explain.slide import SlideExplanation
    from pathology.runs.layering import Layering
    from pathology.runs.scorers import Explainer
    from pathology.slides import Slide
    from pathology.stain import StainFolder
    from pathology.tiling import TileGrid


@dataclass(frozen=True)
class RunsChoice:
    """Which runs explain, as the command line says it; may be sent to another process.

    Args:
        names: folders or checkpoints of runs; the first, and those whose mean with it is explained.
        device, calibrated, pooling, depth, encoder: see :func:`pathology.runs.ready_run.ready_run`.
        stains: folder of the slides' stain profiles; the first run's own when omitted.
        jitter, nulls: see :class:`pathology.runs.layering.Layering`.
    """

    names: list[str]
    device: str = "auto"
    calibrated: bool = False
    pooling: str | None = None
    depth: str = "pixels"
    encoder: EncoderChoice | None = None
    stains: Path | None = None
    jitter: int = 1
    nulls: int = 0

    def load(self) -> "LoadedRuns":
        """The runs, in this process.

        Raises:
            ManifestError, NotExplainableError, StampMismatchError, ValueError, WeightsError: as
                ``ready_run``, ``Layering`` and ``Trained.check_stains``.
        """
        from pathology.runs.layering import Layering
        from pathology.runs.ready_run import ready_run

        runs = [
            ready_run(
                name, device=self.device, calibrated=self.calibrated, pooling=self.pooling,
                depth=self.depth, choice=self.encoder,
            )
            for name in self.names
        ]  # fmt: skip
        layering = Layering(runs, self.jitter, self.nulls)
        trained = runs[0].explainer.trained
        return LoadedRuns(layering, trained.check_stains(self.stains or trained.stains))


@dataclass(frozen=True)
class LoadedRuns:
    """Runs, ready to explain, and what their explanations say of themselves.

    Args:
        layering: whose mean is explained, and what it is held against.
        profiles: stains of the slides, for runs trained on normalised tiles.
    """

    layering: "Layering"
    profiles: "StainFolder | None" = None

    @property
    def explainer(self) -> "Explainer":
        """The first run, which gives the others their targets."""
        return self.layering.runs[0].explainer

    def digest(self) -> str:
        """Fingerprint of all that decides numbers, but slides and their tiles; 16 hex digits."""
        values = {
            **self._settings(),
            "stain": self.profiles.target.digest() if self.profiles else None,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def settings(
        self, grid: "TileGrid", target: str | None, stain: Any, *, out_mpp: float, detail: float
    ) -> dict[str, Any]:
        """What decides the numbers of an explanation.

        Args:
            grid: the slide's tiles.
            target: what is explained; None is what the model chooses.
            stain: the slide's stain profile, where tiles are normalised.
            out_mpp: micrometres per pixel of the map.
            detail: share that is taken apart.
        """
        own = self._settings()
        return {
            "slide": grid.source.stamp,
            "slide_mpp": list(grid.source.mpp),
            "checkpoint": own.pop("checkpoint"),
            "tiles": grid.spec.to_dict(),
            "tile_positions": hashlib.sha256(grid.boxes().tobytes()).hexdigest()[:16],
            "out_mpp": out_mpp,
            "depth": own.pop("depth"),
            "detail": detail,
            "target": target,
            **own,
            "stain": stain and {"target": self.explainer.trained.stain, "profile": stain.digest()},
        }

    def _settings(self) -> dict[str, Any]:
        """The part of them that is the same for all slides."""
        return {
            "checkpoint": self.explainer.trained.checkpoint,
            "depth": self.explainer.scorer.depth,
            **self.explainer.settings,
            "calibration": self.layering.runs[0].calibration,
            "layers": self.layering.settings,
        }

    def provenance(
        self,
        result: "SlideExplanation",
        slide: "Slide",
        grid: "TileGrid",
        settings: dict[str, Any],
        stain: Any,
        made: str,
    ) -> dict[str, str]:
        """The same and more, in words for the report.

        Args:
            result: the explanation.
            slide: the slide.
            grid: its tiles.
            settings: what decided the numbers.
            stain: the slide's stain profile, where tiles were normalised.
            made: when, see :func:`date_made`.
        """
        import bcos_vit

        spec, told = grid.spec, {}
        if self.profiles and stain:
            told["stains"] = (
                f"normalised by {stain.method} to {self.profiles.target.name}, profile"
                f" {stain.digest()}"
            )
        return {
            **self.explainer.words,
            **self.layering.words(result),
            **_input(self.explainer.scorer.encoding, result),
            "run": self.layering.runs[0].name,
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
            "made": made,
            "version": f"bcos-pathology {bcos_vit.__version__}",
            **told,
        }


def date_made() -> str:
    """Now, as results say when they were made.

    The environment variable ``SOURCE_DATE_EPOCH``, seconds since 1970, takes the clock's place:
    with it, results that are made again are the same to the byte.

    Raises:
        ValueError: it is no such number.
    """
    told = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        now = (
            datetime.datetime.now(datetime.UTC)
            if told is None
            else datetime.datetime.fromtimestamp(int(told), datetime.UTC)
        )
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"SOURCE_DATE_EPOCH must be a whole number of seconds since 1970, got {told!r}"
        ) from error
    return now.strftime("%Y-%m-%d %H:%M UTC")


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
