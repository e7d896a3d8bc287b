"""``pathology calibrate``: temperatures and thresholds of a trained model, from validation."""

from collections.abc import Sequence
from pathlib import Path

from pathology.cli.run_function import run_function


def calibrate(
    run: Path,
    shared: bool = False,
    shift: bool = False,
    sensitivity: float | None = None,
    split: str = "val",
    device: str = "auto",
    batch_size: int = 64,
) -> int:
    """Fit temperatures and thresholds on validation; writes RUN/calibration.json.

    A class's temperature divides its evidence (after a softmax all share one), so that
    probabilities are what they say. Of a B-cos model it divides each contribution and leaves the
    bias: maps of the calibrated model are as exact as before. `pathology evaluate --calibrated`
    uses them.

    Args:
        run: folder of a trained run.
        shared: one temperature for all classes, which leaves all decisions as they are; those of
            the classes' own may change which class is predicted.
        shift: fit a shift of each class's logit besides, one more constant as its bias.
        sensitivity: choose the highest thresholds that find this share of each class; thresholds
            are those of the largest sensitivity + specificity (Youden) when omitted.
        split: what to fit on; not the one to be measured.
        device: auto, cpu, cuda, ...
        batch_size: tiles per pass through the model.
    """
    from pathology.cli.predicted import open_source, predict
    from pathology.errors import ManifestError
    from pathology.metrics import Calibration, choose_thresholds, fit, measure
    from pathology.metrics.calibration import COMPARED, FILE, logit_biases
    from pathology.metrics.measures import absent
    from pathology.metrics.thresholds import check_sensitivity, rule_name
    from pathology.runs.trained import load_trained

    check_sensitivity(sensitivity)
    trained = load_trained(run, device)
    source = open_source(run, trained, split, batch_size=batch_size)
    predictions = predict(run, trained, source)
    biases = logit_biases(trained.task, len(predictions.classes))
    found = fit(predictions, biases, shift=shift, shared=shared)
    if missing := absent(predictions):
        raise ManifestError(
            f"{run}: split {split} has no example of {missing[0]}; nothing can be fitted to it"
        )
    after = predictions.rescaled(found.temperatures, found.shifts)
    values = [
        {name: found_here[name].value for name in COMPARED}
        for found_here in (measure(one, repeats=0) for one in (predictions, after))
    ]
    thresholds = choose_thresholds(after, sensitivity)
    Calibration(
        classes=list(predictions.classes),
        link=predictions.link if predictions.outcome == "classes" else "sigmoid",
        temperatures=found.temperatures.tolist(),
        shifts=found.shifts.tolist(),
        thresholds=thresholds,
        rule=rule_name(sensitivity),
        checkpoint=trained.checkpoint,
        split=source.split,
        digest=source.digest,
        examples=len(predictions),
        before=values[0],
        after=values[1],
        unfitted=found.unfitted,
    ).save(run / FILE)
    print(f"{run}: fitted on {len(predictions)} {source.unit} of split {source.split}")
    for i, name in enumerate(predictions.classes):
        plus = f", shift {found.shifts[i]:+.3f}" if shift else ""
        left = f" ({found.unfitted[name]})" if name in found.unfitted else ""
        print(
            f"  {name:<18} temperature {found.temperatures[i]:.3f}{plus},"
            f" threshold {thresholds[name]:.3f}{left}"
        )
    for name, value in values[0].items():
        print(f"  {name:<18} {value:.3f} -> {values[1][name]:.3f}, on the data fitted to")
    if predictions.outcome == "classes":
        changed = float((predictions.decisions != after.decisions).mean())
        if changed:
            print(f"  {100 * changed:.1f} % of {source.unit} change their class; --shared keeps it")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(calibrate, arguments)
