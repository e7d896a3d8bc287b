"""``pathology explain``: exact heatmaps of slides, each folder complete or not there."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function
from pathology.errors import ManifestError

if TYPE_CHECKING:
    from pathology.cli.scorers import Explainer
    from pathology.explain.slide import SlideExplanation
    from pathology.slides import Slide
    from pathology.tiling import TileGrid


def explain(
    run: Path,
    slides: Path,
    tiles: Path,
    out: Path,
    target: str | None = None,
    pooling: str | None = None,
    encoder: str | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    encoder_seed: int | None = None,
    encoder_args: dict[str, Any] | None = None,
    resize: bool = False,
    pixels: Literal["imagenet", "half", "clip", "model"] | None = None,
    calibrated: bool = False,
    out_mpp: float = 8.0,
    depth: str = "pixels",
    stains: Path | None = None,
    mpp: float | None = None,
    device: str = "auto",
    batch_size: int = 16,
    overwrite: bool = False,
    keep_going: bool = False,
) -> int:
    """Write exact slide-level heatmaps: report.html, overlay.png, heatmap.ome.tif, tiles.parquet.

    Each slide and class gets a folder OUT/SLIDE/CLASS; slides that are done by the same model,
    tiles and settings are skipped.

    Args:
        run: folder of a trained run, or a checkpoint.
        slides: manifest (slides.csv), folder of slides, or one slide.
        tiles: folder that `pathology tile` wrote.
        out: folder for the explanations.
        target: class to explain; each slide's class of the highest score when omitted. Of a run on
            slides that predicts grades `grade`, of survival `risk` or `interval_0`, ...
        pooling: how the slide's score weighs tile logits: mean (when omitted), or e.g. top50.
        encoder: for a run on slides, what made its features, as `pathology features` was told;
            likewise weights, pretrained, encoder_seed, encoder_args, resize and pixels.
        weights: file of weights for a timm name.
        pretrained: the weights that timm has under that name.
        encoder_seed: random weights.
        encoder_args: further arguments of timm.create_model.
        resize: resize tiles to the size that the encoder takes.
        pixels: mean and deviation that RGB is normalised by.
        calibrated: explain the logits as `pathology calibrate` has made them.
        out_mpp: micrometres per pixel of the heatmap.
        depth: where the way back through the network stops: pixels, a layer by name, head (the
            last map before pooling), or tiles, which any model has. The deeper, the quicker and the
            coarser: a place sees more of the tile than it covers on the map. There are no maps of
            stains and no colours of W(x) at a depth.
        stains: folder of the slides' stain profiles, when the run was trained on normalised tiles;
            the run's own when omitted.
        mpp: micrometres per pixel of slides that do not say it themselves.
        device: auto, cpu, cuda, ...
        batch_size: tiles per pass through the model.
        overwrite: replace results made by another model or other settings.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    from pathology.cli.cohort import each_slide
    from pathology.cli.feature_slide import EncoderChoice
    from pathology.cli.scorers import make_explainer
    from pathology.cli.slide_list import list_slides, slide_mpp
    from pathology.cli.trained import load_trained
    from pathology.explain.results import check_settings, stored_settings, write_results
    from pathology.explain.slide import explain_slide
    from pathology.metrics import Calibration
    from pathology.metrics.calibration import FILE, apply_calibration
    from pathology.outputs import complete_folder, writable_folder
    from pathology.slides import open_slide
    from pathology.tiling import TileGrid

    if batch_size < 1 or not out_mpp > 0:
        raise ValueError("--batch-size and --out-mpp must be positive")
    loaded = load_trained(run, device)
    task, calibration = loaded.task, None
    if calibrated:
        calibration = Calibration.load(run / FILE, loaded.checkpoint, task.classes)
        apply_calibration(getattr(task.model, "aggregator", task), calibration)
    choice = None
    if encoder is not None:
        choice = EncoderChoice(
            encoder, weights, pretrained, encoder_seed, encoder_args, resize, pixels
        )
    explainer = make_explainer(loaded, pooling, depth, choice)
    scorer, trained = explainer.scorer, explainer.trained
    if target is not None and target not in scorer.classes:
        raise ValueError(f"--target must be one of {', '.join(scorer.classes)}; got {target!r}")
    profiles = trained.check_stains(stains or trained.stains)
    normaliser = profiles.normaliser() if profiles else None
    table = list_slides(slides, mpp)
    writable_folder(out)

    def work(row: dict[str, Any]) -> str:
        path = tiles / f"{row['slide_id']}.parquet"
        if not path.is_file():
            raise ManifestError(
                f"{path}: no tiles of slide {row['slide_id']!r}; run `pathology tile` first"
            )
        colour = TileGrid.load(path).spec.colour
        with open_slide(row["path"], slide_mpp(row), colour=colour) as slide:
            grid = TileGrid.load(path, slide=slide)
            explainer.check_tiles(grid.spec, str(path))
            name = str(row["slide_id"])
            stain = profiles.profile(name, slide.stamp(), colour) if profiles else None
            settings = _settings(grid, explainer, out_mpp, depth, target)
            settings["calibration"] = calibration and calibration.numbers()
            settings["stain"] = stain and {"target": trained.stain, "profile": stain.digest()}
            # One folder per slide and class asked for; "predicted" when the model chooses.
            folder = out / name / (target or "predicted")
            if folder.exists() and overwrite:
                stored_settings(folder)  # replace explanations, nothing else
            elif folder.exists():
                check_settings(folder, settings)
                return f"{folder / 'report.html'}: made before by the same model and settings"
            with complete_folder(folder) as scratch:
                result = explain_slide(
                    slide,
                    grid,
                    scorer,
                    target,
                    out_mpp=out_mpp,
                    batch_size=batch_size,
                    scratch=scratch / "stitch",
                    progress=_progress,
                    normalise=partial(normaliser, profiles=stain) if normaliser else None,
                )
                provenance = _provenance(result, slide, grid, explainer, run, settings)
                if profiles and stain:
                    provenance["stains"] = (
                        f"normalised by {stain.method} to {profiles.target.name}, profile"
                        f" {stain.digest()}"
                    )
                write_results(result, slide, scratch, settings, provenance)
                shutil.rmtree(scratch / "stitch")
        return f"{folder / 'report.html'}\n{_indented(str(result.ledger))}"

    return each_slide(table, work, "explaining", keep_going, failures=out / "failures.csv")


def _settings(
    grid: "TileGrid",
    explainer: "Explainer",
    out_mpp: float,
    depth: str,
    target: str | None,
) -> dict[str, Any]:
    """What decides the numbers of an explanation."""
    return {
        "slide": grid.source.stamp,
        "slide_mpp": list(grid.source.mpp),
        "checkpoint": explainer.trained.checkpoint,
        "tiles": grid.spec.to_dict(),
        "tile_positions": hashlib.sha256(grid.boxes().tobytes()).hexdigest()[:16],
        "out_mpp": out_mpp,
        "depth": depth,
        "target": target,
        **explainer.settings,
    }


def _provenance(
    result: "SlideExplanation",
    slide: "Slide",
    grid: "TileGrid",
    explainer: "Explainer",
    run: Path,
    settings: dict[str, Any],
) -> dict[str, str]:
    """The same and more, in words for the report."""
    import datetime

    import bcos_vit

    spec = grid.spec
    return {
        **explainer.words,
        **_input(explainer.scorer.encoding, result),
        "run": run.name,
        "checkpoint": explainer.trained.checkpoint,
        "slide file": slide.path.name if slide.path else "in memory",
        "slide stamp": grid.source.stamp,
        "slide resolution": f"{slide.mpp.x:.5g} x {slide.mpp.y:.5g} µm/px ({slide.mpp_source})",
        "tiles": f"{len(grid)} of {spec.size_px} px at {spec.mpp:g} µm/px,"
        f" overlap {spec.overlap_px} px",
        "map": f"{settings['out_mpp']:g} µm/px",
        "depth": _depth(result, spec.mpp * spec.size_px),
        "largest gap of a tile": f"{result.tiles['gap'].max():.1e} logits",
        **_calibration(settings["calibration"]),
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": f"bcos-pathology {bcos_vit.__version__}",
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
    parts = [f"{name} {share:+.6f}" for name, share in result.stain_sums.items()]
    return told | {"map and cut off by stain": f"{', '.join(parts)} logits"}


def _calibration(numbers: dict[str, Any] | None) -> dict[str, str]:
    """What the logits were divided by, for the report."""
    if numbers is None:
        return {}
    return {"calibrated": "; ".join(f"{what} {values}" for what, values in numbers.items())}


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


def _progress(batches: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(batches, total=total, desc=what, unit="batch", leave=False)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(explain, arguments)
