"""``pathology evaluate``: a trained model's measures on a split, with intervals and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.run_function import run_function
from pathology.errors import StampMismatchError

if TYPE_CHECKING:
    from pathology.cli.predicted import Source
    from pathology.metrics import Calibration, Predictions
    from pathology.runs.trained import Trained


def evaluate(
    run: Path,
    split: str | None = None,
    manifest: str | None = None,
    root: str | None = None,
    tiles: str | None = None,
    shards: str | None = None,
    features: str | None = None,
    stains: str | None = None,
    group_column: str | None = None,
    calibrated: bool = False,
    bins: int = 15,
    adaptive_bins: bool = False,
    repeats: int = 1000,
    out: Path | None = None,
    device: str = "auto",
    batch_size: int = 64,
) -> int:
    """Measure a trained model on one split: measures with 95 % intervals, predictions, a page.

    Writes SPLIT.json, SPLIT.parquet and SPLIT.html (SPLIT_calibrated with --calibrated).

    Args:
        run: folder of a trained run.
        split: train, val, test or all; when omitted val, or all rows of a manifest without splits.
        manifest: another manifest than the run's own, of the same classes; of images it needs the
            columns file (or path) and label.
        root: folder of that manifest's images; its own folder when omitted.
        tiles: folder of that manifest's tile tables, when it is one of slides.
        shards: folder of that manifest's packed tiles, instead of tiles.
        features: folder of that manifest's features, when the run is of slides.
        stains: folder of its slides' stain profiles, when the run was trained on normalised tiles.
        group_column: column of the manifest drawn as a whole by the bootstrap; patient_id, else
            slide_id, else each example by itself when omitted. Rows without an entry stand alone.
        calibrated: use the temperatures and thresholds that `pathology calibrate` stored.
        bins: of the expected calibration error.
        adaptive_bins: bins of equally many examples rather than of equal width.
        repeats: bootstrap draws.
        out: folder for measures, predictions and page; RUN/evaluation when omitted.
        device: auto, cpu, cuda, ...
        batch_size: tiles per pass through the model.
    """
    from pathology.cli.predicted import open_source, predict
    from pathology.metrics import Calibration, measure
    from pathology.metrics.calibration import FILE
    from pathology.metrics.report import absence_note
    from pathology.outputs import complete_file, writable_folder
    from pathology.runs.trained import load_trained

    trained = load_trained(run, device)
    calibration = None
    if calibrated:
        calibration = Calibration.load(run / FILE, trained.checkpoint, trained.task.classes)
    source = open_source(
        run,
        trained,
        split,
        group_column=group_column,
        batch_size=batch_size,
        manifest=manifest,
        root=root,
        tiles=tiles,
        shards=shards,
        features=features,
        stains=stains,
    )
    folder = writable_folder(out or run / "evaluation")
    stem = source.split + ("_calibrated" if calibrated else "")
    _check_same(folder / f"{stem}.json", run, source.made_from)

    predictions = predict(run, trained, source)
    before = None
    if calibration is not None:
        # The numbers of the calibrated model, without another pass.
        before, predictions = predictions, calibration.applied(predictions)
    thresholds = None if calibration is None else calibration.thresholds or None
    binning: Any = "count" if adaptive_bins else "width"
    estimates = measure(
        predictions, repeats=repeats, thresholds=thresholds, bins=bins, binning=binning
    )
    notes = [note for note in (absence_note(predictions), _seen_note(run, source)) if note]
    if calibration is not None and calibration.is_of(source.digest, source.split):
        notes.append(
            f"Temperatures and thresholds were fitted on this very split, {source.split}: what"
            " is measured here of calibration and thresholds is too good."
        )
    table = predictions.table()
    with complete_file(folder / f"{stem}.parquet") as draft:
        table.to_parquet(draft)
    record = {
        "run": str(run.resolve()),
        "split": source.split,
        "made_from": source.made_from,
        source.unit: len(predictions),
        "groups": None if source.groups is None else len(set(source.groups)),
        "checkpoint": trained.checkpoint,
        "outcome": predictions.outcome,
        "classes": list(predictions.classes),
        "link": predictions.link,
        "calibration": _calibration_record(calibration, before, predictions, bins, binning),
        "bootstrap": {"repeats": repeats, "level": 0.95, "seed": 0},
        "ece": {"bins": bins, "binning": binning},
        "notes": notes,
        "metrics": {name: estimate.record() for name, estimate in estimates.items()},
    }
    with complete_file(folder / f"{stem}.json") as draft:
        draft.write_text(json.dumps(record, indent=2))
    page = folder / f"{stem}.html"
    _write_page(
        page,
        run,
        trained,
        source,
        predictions,
        estimates,
        before,
        calibration,
        notes,
        bins,
        binning,
    )
    drawn = source.unit + " one by one"
    if source.groups is not None:
        drawn = f"{record['groups']} by {source.group_column}"
    print(
        f"{run}: {len(predictions)} {source.unit} of split {source.split}, 95 % intervals over"
        f" {drawn}"
    )
    shown = [name for name in estimates if "/" not in name]
    width = max(map(len, shown))
    for name in shown:
        print(f"  {name:<{width}} {estimates[name]}")
    for note in notes:
        print(f"  {note}")
    print(f"  by class and example: {page}")
    return 0


def _calibration_record(
    calibration: "Calibration | None",
    before: "Predictions | None",
    predictions: "Predictions",
    bins: int,
    binning: Any,
) -> dict[str, Any] | None:
    """What calibration did here, and what it was fitted on."""
    from pathology.metrics import measure
    from pathology.metrics.calibration import COMPARED

    if calibration is None or before is None:
        return None
    compared = {}
    for name, one in (("before", before), ("after", predictions)):
        found = measure(one, repeats=0, bins=bins, binning=binning)
        compared[name] = {key: found[key].record()["value"] for key in COMPARED}
    return {
        "temperatures": dict(zip(calibration.classes, calibration.temperatures, strict=True)),
        "shifts": dict(zip(calibration.classes, calibration.shifts, strict=True)),
        "thresholds": dict(calibration.thresholds),
        "fitted_on": {"split": calibration.split, "digest": calibration.digest},
        **compared,
    }


def _write_page(
    path: Path,
    run: Path,
    trained: "Trained",
    source: "Source",
    predictions: "Predictions",
    estimates: Any,
    before: "Predictions | None",
    calibration: "Calibration | None",
    notes: Sequence[str],
    bins: int,
    binning: Any,
) -> None:
    """The page of an evaluation."""
    from datetime import date

    import torch

    from bcos_vit import __version__
    from pathology.metrics.report import Report, worst, write_report

    provenance = {
        "run": str(run),
        "checkpoint": trained.checkpoint,
        "model": str(trained.task.hparams.get("model", "")),
        "manifest": source.data.manifest,
        "split": source.split,
        "data": source.digest[:16],
        "calibration error": f"{bins} bins of equal {binning}",
        "versions": f"bcos-pathology {__version__}, torch {torch.__version__}",
        "date": date.today().isoformat(),
    }
    if calibration is not None:
        pairs = zip(calibration.classes, calibration.temperatures, strict=True)
        provenance["temperatures"] = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
        if any(calibration.shifts):
            pairs = zip(calibration.classes, calibration.shifts, strict=True)
            provenance["shifts"] = ", ".join(f"{name} {value:+.3g}" for name, value in pairs)
        provenance["fitted on"] = (
            f"split {calibration.split}, {calibration.examples} examples,"
            f" thresholds by {calibration.rule or 'none'}"
        )
    pictures = {row: source.picture(row) for row in worst(predictions)}
    write_report(
        path,
        Report(
            f"{run.resolve().name}, {source.split}" + (", calibrated" if calibration else ""),
            predictions,
            estimates,
            {name: value for name, value in provenance.items() if value},
            source.unit,
            source.group_name,
            before=before,
            thresholds=None if calibration is None else calibration.thresholds or None,
            notes=notes,
            pictures={row: pixels for row, pixels in pictures.items() if pixels is not None},
            bins=bins,
            binning=binning,
        ),
    )


def _seen_note(run: Path, source: "Source") -> str | None:
    """What a reader must know of examples that training has seen; ``None`` of others."""
    from pathology.tasks.checkpoint import Run

    if Run(run).data_arguments().get("manifest") != source.data.manifest:
        return None
    return {
        "train": "The model was trained on this split: the figures say nothing of other data.",
        "all": "Among these is what the model was trained on: the figures are too good.",
        "val": "Training chose its best checkpoint on this split: the figures are a bit too good.",
    }.get(source.split)


def _check_same(path: Path, run: Path, made_from: dict[str, Any]) -> None:
    """Refuse to replace figures of another manifest or run."""
    try:
        stored = json.loads(path.read_text())
        digest, manifest = stored["made_from"]["digest"], stored["made_from"]["manifest"]
        other = stored.get("run", str(run.resolve()))
    except (OSError, json.JSONDecodeError, AttributeError, KeyError, TypeError):
        return
    if digest != made_from["digest"]:
        raise StampMismatchError(
            f"{path}: holds figures for {manifest}, as it was then; choose another --out"
        )
    # A run that was moved takes its own folder of figures along.
    if other != str(run.resolve()) and path.resolve().parent != (run / "evaluation").resolve():
        raise StampMismatchError(f"{path}: holds figures of run {other}; choose another --out")


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(evaluate, arguments)
