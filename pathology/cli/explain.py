"""``pathology explain``: exact heatmaps of slides, each folder complete or not there."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pathology.cli.run_function import run_function


def explain(
    run: Path,
    slides: str | Path,
    tiles: str | Path,
    out: str | Path,
    target: str | list[str] | None = None,
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
    detail: float = 1.0,
    members: str | list[str] | None = None,
    jitter: int = 1,
    null: int = 0,
    formats: str | list[str] | None = None,
    stains: Path | None = None,
    mpp: float | None = None,
    device: str = "auto",
    batch_size: int = 16,
    part: str | None = None,
    workers: int = 0,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers_per_gpu: int = 1,
    retries: int = 1,
    overwrite: bool = False,
    keep_going: bool = False,
) -> int:
    """Write exact slide-level heatmaps: report.html, figure.pdf, heatmap.ome.tif, tiles.parquet.

    Each slide and target gets a folder OUT/SLIDE/TARGET; those that are done by the same model,
    tiles and settings are skipped.

    Args:
        run: folder of a trained run, or a checkpoint.
        slides: manifest (slides.csv), folder of slides, or one slide; here or by URL (s3://, gs://).
        tiles: folder or URL that `pathology tile` wrote to.
        out: folder or URL for the explanations.
        target: what to explain: a class; a difference of classes, "tumour - normal", or of a class
            and the mean of all, "tumour - mean"; several as "[tumour, tumour - normal]"; "all" for
            every class. Each slide's class of the highest score when omitted. Of a run on slides
            that predicts grades `grade`, of survival `risk` or `interval_0`, ...
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
        detail: share of the tiles' absolute contributions that is taken apart, the strongest tiles
            first; the others are spread evenly over themselves and counted in the ledger. Below
            about 0.6 of the tiles it is quicker.
        members: further runs, as "[fold1, fold2]": the mean score of all is explained, and layers/
            says where their maps differ. With :raw behind a run with ema_decay, the weights that
            were trained, rather than their average.
        jitter: shifts of the grid of tiles that are averaged likewise, the grid as it is among
            them; 4 take four times as long.
        null: models of random weights that the map is held against, at least 2, in layers/; each
            takes as long as an explanation. 19 can tell a p of 0.05.
        formats: further files: ome-zarr (extra [zarr]), dicom (a parametric map, of DICOM slides;
            extra [dicom]); both as "[ome-zarr, dicom]".
        stains: folder of the slides' stain profiles, when the run was trained on normalised tiles;
            the run's own when omitted.
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
        device: auto, cpu, cuda, ...
        batch_size: tiles per pass through the model.
        part: 3/16 takes the third of every 16 slides, so that 16 jobs share the work.
        workers: processes that explain a slide each, every one with a model of its own and, where
            there are several, a graphics card; 0: this one, and with ray as many as there is place
            for.
        engine: local, processes of this machine, or ray, those of a cluster.
        address: of the cluster that this machine belongs to, with ray: auto or host:port; a cluster
            of this machine alone when omitted.
        workers_per_gpu: workers that share a graphics card, with ray: 2 where slides come by URL
            or are explained, so that one computes while the other reads or writes.
        retries: how often a slide is tried again whose worker died.
        overwrite: replace results made by another model or other settings.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    from dataclasses import replace

    from pathology.cli.explain_slide import SlideExplainer
    from pathology.cli.on_cohort import OnCohort, Results
    from pathology.cohort.bench import Input
    from pathology.data.slide_list import list_slides
    from pathology.explain.results.write import check_formats
    from pathology.outputs import DRAFT_END, remove_abandoned
    from pathology.runs.encoder_choice import EncoderChoice
    from pathology.runs.loaded_runs import RunsChoice
    from pathology.store.place import output_place
    from pathology.store.store import Store

    if batch_size < 1 or not 0 < out_mpp < float("inf"):
        raise ValueError("--batch-size and --out-mpp must be positive and finite")
    if not 0 < detail <= 1:
        raise ValueError(f"--detail must be above 0 and at most 1, got {detail}")
    cohort = OnCohort(engine, address, workers, retries, part, keep_going)
    needs = cohort.needs(device, workers_per_gpu=workers_per_gpu)
    kinds: list[str] = [formats] if isinstance(formats, str) else formats or []
    check_formats(kinds)
    choice = None
    if encoder is not None:
        choice = EncoderChoice(
            encoder, weights, pretrained, encoder_seed, encoder_args, resize, pixels
        )
    others: list[str] = [members] if isinstance(members, str) else members or []
    runs = RunsChoice(
        [str(run), *others], device, calibrated, pooling, depth, choice, stains, jitter, null
    )
    table = list_slides(slides, mpp)
    # Where others work, this process only looks at what they will load.
    loaded = (replace(runs, device="cpu") if cohort.is_elsewhere else runs).load()
    targets = _targets(target, loaded.explainer.scorer.classes)
    tables = Store.at(tiles)
    inputs = {"tiles": Input(tables)}
    if loaded.profiles:
        inputs["stains"] = Input(Store.at(loaded.profiles.folder), (".json",))
    with output_place(out) as place:
        # Of killed runs, also beside slides that others have done meanwhile.
        folders = [place.folder / name for name in table["slide_id"]]
        remove_abandoned(path for each in folders for path in each.glob(f".*{DRAFT_END}"))
        work = SlideExplainer(
            runs,
            tiles=tables.folder if tables.is_local else Path(),
            out=place.folder,
            targets=targets,
            out_mpp=out_mpp,
            detail=detail,
            batch_size=batch_size,
            formats=kinds,
            overwrite=overwrite,
            bars=cohort.bars,
            wanted=loaded.digest(),
            here=None if cohort.is_elsewhere else loaded,
        )
        del loaded
        results = Results("explain", "explaining", ("/",), work.digest(), inputs, again=overwrite)
        return cohort.each_slide(table, work, results, place, needs)


def _targets(asked: str | list[str] | None, classes: list[str]) -> list[str]:
    """Targets by name; none for each slide's class of the highest score.

    Raises:
        ValueError: there is no such target, it was named twice, or two would share a folder.
    """
    from pathology.explain.targets import parse_target

    if asked == "all" and "all" not in classes:
        targets = classes
    else:
        targets = _several(asked, classes) if isinstance(asked, str) else asked or []
    if asked is not None and not targets:
        raise ValueError("--target names none; leave it out for the class of the highest score")
    by_folder: dict[str, str] = {}
    for text in targets:
        try:
            folder = parse_target(text, classes).folder
        except ValueError as error:
            raise ValueError(f"--{error}") from error
        other = by_folder.setdefault(folder, text)
        if targets.count(text) > 1:
            raise ValueError(f"--target names {text!r} twice")
        if other != text:
            raise ValueError(
                f"--target: {other!r} and {text!r} would share the folder {folder}; explain them"
                " one by one, each into an --out of its own"
            )
    return targets


def _several(text: str, classes: list[str]) -> list[str]:
    """One target, or those of a list whose words look like numbers, such as ``[0, 1]``."""
    import yaml

    if text not in classes and text.startswith("["):
        with suppress(yaml.YAMLError):
            words = yaml.load(text, yaml.BaseLoader)  # all words stay as they are
            if isinstance(words, list) and all(isinstance(word, str) for word in words):
                return words
    return [text]


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(explain, arguments)
