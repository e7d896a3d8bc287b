"""Predictions as one HTML file: measures with intervals, curves, patients, the worst mistakes.

Everything is inside the file; it asks nobody for anything.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pathology.metrics import figures
from pathology.metrics.bootstrap import Estimate
from pathology.metrics.measures import PRESENT, absent
from pathology.metrics.predictions import SURVIVAL, Predictions
from pathology.metrics.reliability import Binning
from pathology.outputs import complete_file
from pathology.pages import image_uri, page_template

TEMPLATE = Path(__file__).with_name("templates") / "report.html.j2"

NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "f1": "F1",
    "kappa": "Kappa, quadratic",
    "mean_error": "Mean error, grades",
    "ece": "ECE",
    "brier": "Brier score",
    "nll": "NLL",
    "c_index": "C-index",
}
PER_CLASS = ("auroc", "auprc", "sensitivity", "specificity", "f1")
MOST_ROWS = 2000
"""Rows of a table; a page of more is slow to open, and all are in the predictions' file."""
MOST_PICTURES = 12


@dataclass(frozen=True)
class Report:
    """What a page of measures is made of.

    Args:
        title: printed above.
        predictions: what was measured.
        estimates: of :func:`pathology.metrics.measure`.
        provenance: what made this, in the order it is printed.
        unit: what an example is: tiles, slides, patients.
        group_name: what was drawn as a whole, e.g. ``patient_id``; ``None`` for each by itself.
        level: of the intervals.
        before: the same predictions without calibration, if there is one.
        thresholds: probability by class that sensitivity and specificity are at.
        notes: what a reader must know about the figures.
        pictures: of an example by its row, ``(height, width, 3)``, for the worst mistakes.
        bins: of the calibration error.
        binning: likewise.
    """

    title: str
    predictions: Predictions
    estimates: Mapping[str, Estimate]
    provenance: Mapping[str, str] = field(default_factory=dict)
    unit: str = "examples"
    group_name: str | None = None
    level: float = 0.95
    before: Predictions | None = None
    thresholds: Mapping[str, float] | None = None
    notes: Sequence[str] = ()
    pictures: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    bins: int = 15
    binning: Binning = "width"


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page.

    Args:
        path: file to write; an existing one is replaced.
        report: what to show.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    html = render_report(report)
    with complete_file(path) as draft:
        draft.write_text(html, encoding="utf-8")
    return path


def render_report(report: Report) -> str:
    """The HTML that :func:`write_report` writes."""
    predictions = report.predictions
    is_survival = predictions.outcome in SURVIVAL
    examples = example_table(predictions)
    groups = _group_rows(predictions, report) if predictions.groups is not None else []
    return page_template(TEMPLATE, {"interval": interval_text}).render(
        title=report.title,
        singular=lambda name: name.removesuffix("s"),
        unit=report.unit,
        count=len(predictions),
        group_name=report.group_name,
        groups=len(np.unique(predictions.groups)) if predictions.groups is not None else None,
        level=100 * report.level,
        notes=report.notes,
        headline=[
            (_title(name), estimate)
            for name, estimate in report.estimates.items()
            if "/" not in name
        ],
        per_class=[] if is_survival else _per_class(report),
        figures=_figures(report),
        mistakes=_mistakes(report, examples),
        group_rows=groups[:MOST_ROWS],
        all_groups=len(groups),
        example_rows=examples[:MOST_ROWS].to_dict("records"),
        is_survival=is_survival,
        provenance=report.provenance,
        thresholds=report.thresholds,
    )


def interval_text(estimate: Estimate) -> str:
    """An interval as it is printed; empty where there is none."""
    return "" if math.isnan(estimate.low) else f"{estimate.low:.3f} to {estimate.high:.3f}"


def worst(predictions: Predictions, most: int = MOST_PICTURES) -> list[int]:
    """Rows of the most confident mistakes, the worst first."""
    if predictions.outcome in SURVIVAL:
        return []
    table = example_table(predictions)
    return [int(row) for row in table.loc[~table["right"], "row"].head(most)]


def example_table(predictions: Predictions) -> pd.DataFrame:
    """One row per example, the worst first: name, group, truth, prediction, how sure, right.

    ``true_probability`` is that of the true class; of ``labels`` the smallest probability of being
    right about a label.
    """
    rows = np.arange(len(predictions))
    names = predictions.truth["name"] if "name" in predictions.truth else rows + 1
    table = pd.DataFrame({"row": rows, "name": np.asarray(names).astype(str)})
    group = "" if predictions.groups is None else np.asarray(predictions.groups).astype(str)
    table["group"] = group
    if predictions.outcome in SURVIVAL:
        table["risk"], table["time"] = predictions.risk, predictions.time
        table["event"] = predictions.event
        return table.sort_values("risk", ascending=False, kind="stable", ignore_index=True)
    classes = np.array(list(predictions.classes), dtype=object)
    probabilities = predictions.probabilities
    if predictions.outcome == "labels":
        decided = predictions.logits > 0
        table["truth"] = [";".join(classes[hit]) for hit in predictions.positive]
        table["predicted"] = [";".join(classes[hit]) for hit in decided]
        of_truth = np.where(predictions.positive, probabilities, 1 - probabilities)
        table["true_probability"] = of_truth.min(1)
        table["probability"] = np.where(decided, probabilities, 1 - probabilities).min(1)
        table["right"] = (decided == predictions.positive).all(1)
        order = table["true_probability"]
    else:
        decisions = predictions.decisions
        table["truth"], table["predicted"] = classes[predictions.codes], classes[decisions]
        table["probability"] = probabilities[rows, decisions]
        table["true_probability"] = probabilities[rows, predictions.codes]
        table["right"] = decisions == predictions.codes
        order = table["true_probability"] - table["probability"]
        if predictions.outcome == "grades":
            order = order - np.abs(decisions - predictions.codes)
    sorted_table = table.assign(order=order).sort_values(["right", "order"], kind="stable")
    return sorted_table.drop(columns="order").reset_index(drop=True)


def _group_rows(predictions: Predictions, report: Report) -> list[dict[str, Any]]:
    """One row per group, the worst first."""
    groups = np.asarray(predictions.groups).astype(str)
    rows: list[dict[str, Any]] = []
    if predictions.outcome in SURVIVAL:
        return rows
    table = example_table(predictions)
    names = list(predictions.classes)
    for name, part in table.groupby("group", sort=False):
        chosen = groups == name
        mean = predictions.probabilities[chosen].mean(0)
        truths = sorted(set(part["truth"]))
        wrong = part.loc[~part["right"]]
        rows.append(
            {
                "name": name,
                "count": len(part),
                "truth": ", ".join(truths) if len(truths) <= 4 else f"{len(truths)} classes",
                "right": float(part["right"].mean()),
                "predicted": names[int(mean.argmax())],
                "probability": float(mean.max()),
                "of_truth": float(part["true_probability"].mean()),
                "worst": wrong["name"].iloc[0] if len(wrong) else "",
            }
        )
    return sorted(rows, key=lambda row: (row["right"], row["of_truth"]))


def _per_class(report: Report) -> list[dict[str, Any]]:
    """One row per class: how many, and its measures."""
    predictions = report.predictions
    counts = predictions.positive.sum(0)
    return [
        {
            "name": name,
            "count": int(counts[i]),
            "measures": [
                report.estimates.get(f"{one}/{name}", report.estimates.get(f"{one}/>={name}"))
                for one in PER_CLASS
            ],
            "threshold": None if report.thresholds is None else report.thresholds[name],
        }
        for i, name in enumerate(predictions.classes)
    ]


def _figures(report: Report) -> list[dict[str, str]]:
    predictions = report.predictions
    if predictions.outcome in SURVIVAL:
        caption = (
            "Kaplan-Meier curves of the halves of lower and higher predicted risk, parted at"
            " the median of these data; ticks are censored."
        )
        return [_figure("Survival by risk", figures.survival_figure(predictions), caption)]
    named = [("", predictions)]
    if report.before is not None:
        named = [("as trained", report.before), ("calibrated", predictions)]
    of = "all labels together" if predictions.outcome == "labels" else "the predicted class"
    bins = f"{report.bins} bins of equal {'width' if report.binning == 'width' else 'count'}"
    found = [
        _figure("ROC", figures.roc_figure(predictions), "Each class against the rest."),
        _figure(
            "Precision and recall",
            figures.pr_figure(predictions),
            "Dotted: each class's share of the examples, the precision of guessing.",
        ),
        _figure(
            "Reliability",
            figures.reliability_figure(named, report.bins, report.binning),
            f"Probability of {of}, {bins}; larger dots hold more examples. Above the diagonal the"
            " model is too modest, below it too sure.",
        ),
    ]
    if predictions.outcome != "labels":
        found.append(
            _figure(
                "Confusion",
                figures.confusion_figure(predictions),
                f"Number of {report.unit}; shades are shares of each true class.",
            )
        )
    return found


def _figure(title: str, source: str, caption: str) -> dict[str, str]:
    return {"title": title, "source": source, "caption": caption}


def _mistakes(report: Report, examples: pd.DataFrame) -> list[dict[Any, Any]]:
    """The worst mistakes that there are pictures of."""
    if not report.pictures:
        return []
    cards = []
    for row in examples.to_dict("records"):
        pixels = report.pictures.get(int(row["row"]))
        if pixels is not None:
            image = Image.fromarray(pixels)
            image.thumbnail((224, 224))
            cards.append({**row, "picture": image_uri(image.convert("RGB"), "jpeg", quality=88)})
    return cards


def _title(name: str) -> str:
    if name.endswith(PRESENT):
        return f"{NAMES.get(name[: -len(PRESENT)], name)}, classes that are there"
    return NAMES.get(name, name)


def absence_note(predictions: Predictions) -> str | None:
    """One line about classes that the data lack; ``None`` where they lack none."""
    missing = absent(predictions)
    if not missing:
        return None
    return (
        f"No example of {', '.join(missing)}: means over all classes are not defined; those over"
        f" the classes that are there end in {PRESENT}."
    )
