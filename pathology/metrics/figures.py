"""Curves of predictions as SVG: ROC, precision and recall, reliability, confusion, survival.

Colours are told apart by colour-blind eyes (Okabe and Ito, 2008); beyond eight curves by dashes.
"""

import base64
import io
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pathology.metrics.measures import confidence
from pathology.metrics.predictions import Predictions
from pathology.metrics.ranking import curves
from pathology.metrics.reliability import Binning, Reliability
from pathology.metrics.survival import kaplan_meier

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b2430", "#999933")
DASHES = ("-", "--", ":", "-.")
INK, FAINT = "#1b2430", "#aab4be"
Place = Literal["upper left", "upper right", "lower right", "best"]
_POINTS = 400  # of one curve: more are not seen
_NAMED = 12  # classes in a legend
_CELLS = 14  # classes of a confusion matrix whose cells are written in


def roc_figure(predictions: Predictions) -> str:
    """Sensitivity over 1 - specificity, a curve per class that has examples and others."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    for i, (name, scores, positive) in enumerate(_ranked(predictions)):
        _, true, false = curves(scores, positive)
        x, y = np.append(0, false / false[-1]), np.append(0, true / true[-1])
        _draw(axes, x, y, i, name)
    return _svg(_with_legend(figure, axes, "lower right"))


def pr_figure(predictions: Predictions) -> str:
    """Precision over sensitivity; a dotted line at each class's share of the examples."""
    figure, axes = _square("sensitivity (recall)", "precision")
    for i, (name, scores, positive) in enumerate(_ranked(predictions)):
        _, true, false = curves(scores, positive)
        # Each score's precision holds for the recall gained there, as average precision sums it.
        x = np.append(0, true / true[-1])
        precision = true / (true + false)
        _draw(axes, x, np.append(precision[0], precision), i, name, drawstyle="steps-pre")
        axes.axhline(positive.mean(), color=_colour(i), linewidth=0.8, linestyle=":")
    return _svg(_with_legend(figure, axes, "best"))


def reliability_figure(
    named: Sequence[tuple[str, Predictions]], bins: int, binning: Binning
) -> str:
    """How often predictions of a probability are right, for one or several sets of predictions.

    Args:
        named: what each is called, e.g. before and after calibration.
        bins: as of the calibration error.
        binning: likewise.
    """
    figure, axes = _square("probability said", "share that is true")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    for i, (name, predictions) in enumerate(named):
        table = reliability(predictions, bins, binning)
        said, found, counts = table.points()
        size = 12 + 150 * np.sqrt(counts / counts.sum())
        ece = table(np.ones(len(table.probability)))
        label = f"{name}: ECE {ece:.3f}" if name else None
        axes.plot(said, found, color=_colour(i), linewidth=1.4, label=label)
        axes.scatter(
            said, found, s=size, color=_colour(i), edgecolor="white", linewidth=0.6, zorder=3
        )
        if not name:
            axes.text(0.03, 0.97, f"ECE {ece:.3f}", va="top", fontsize=9, color=INK)
    return _svg(_with_legend(figure, axes, "upper left"))


def reliability(predictions: Predictions, bins: int, binning: Binning) -> Reliability:
    """Of the predicted class; of ``labels`` of all labels together."""
    if predictions.outcome == "labels":
        return Reliability(
            predictions.probabilities.ravel(), predictions.positive.ravel(), bins, binning
        )
    return confidence(predictions, bins, binning)


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """``(classes, classes)`` examples by truth (rows) and decision."""
    count = len(predictions.classes)
    cell = predictions.codes * count + predictions.decisions
    return np.bincount(cell, minlength=count**2).reshape(count, count)


def confusion_figure(predictions: Predictions) -> str:
    """Decisions by truth, coloured by the share of the true class, with counts."""
    table = confusion(predictions)
    count = len(table)
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(table / table.sum(1, keepdims=True))
    figure = Figure(figsize=(4.4, 4.1), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in predictions.classes]
    axes.set_xticks(range(count), names)
    if count > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if count <= _CELLS:
        for row in range(count):
            for column in range(count):
                axes.text(
                    column, row, f"{table[row, column]}\n{100 * share[row, column]:.0f} %"
                    if count <= 5 else f"{table[row, column]}",
                    ha="center", va="center", fontsize=10 if count <= 5 else 7,
                    color="white" if share[row, column] > 0.6 else INK,
                )  # fmt: skip
    _style(axes)
    axes.tick_params(length=0)
    return _svg(figure)


def survival_figure(predictions: Predictions) -> str:
    """Kaplan-Meier curves of the halves of higher and lower risk, parted at the median."""
    figure = Figure(figsize=(5.6, 4.1), layout="constrained")
    axes = figure.add_subplot()
    is_high = predictions.risk > np.median(predictions.risk)
    for i, (name, half) in enumerate((("lower risk", ~is_high), ("higher risk", is_high))):
        if not half.any():
            continue
        time, event = predictions.time[half], predictions.event[half]
        times, shares = kaplan_meier(time, event)
        axes.step(
            np.append(times, time.max()), np.append(shares, shares[-1]), where="post",
            color=_colour(i), linewidth=1.8, label=f"{name} ({half.sum()}, {event.sum()} events)",
        )  # fmt: skip
        seen = shares[np.searchsorted(times, time[~event], side="right") - 1]
        axes.scatter(time[~event], seen, marker="|", s=36, linewidth=0.9, color=_colour(i))
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("time")
    axes.set_ylabel("share without the event")
    _style(axes)
    return _svg(_with_legend(figure, axes, "upper right"))


def _ranked(
    predictions: Predictions,
) -> "list[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]":
    """Name, scores and truth of what can be ranked, those that have examples and others."""
    scores, positive = predictions.scores, predictions.positive
    return [
        (name, scores[:, i], positive[:, i])
        for i, name in enumerate(predictions.classes)
        if positive[:, i].any() and not positive[:, i].all()
    ]


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=9, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _draw(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    i: int,
    name: str,
    drawstyle: str = "default",
) -> None:
    """One curve, thinned to what can be seen."""
    if len(x) > _POINTS:
        # Equal steps along the curve keep its steep and its flat parts alike.
        way = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
        kept = np.searchsorted(way, np.linspace(0, way[-1], _POINTS))
        chosen = np.unique(np.append(np.minimum(kept, len(x) - 1), len(x) - 1))
        x, y = x[chosen], y[chosen]
    axes.plot(
        x, y, color=_colour(i), linestyle=DASHES[i // len(COLOURS) % len(DASHES)], linewidth=1.7,
        drawstyle=drawstyle, label=_short(name) if i < _NAMED else None,
    )  # fmt: skip


def _with_legend(figure: Figure, axes: Axes, place: Place) -> Figure:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc=place, fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


def _svg(figure: Figure) -> str:
    """The figure as an address that an ``img`` shows."""
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    # No date and no random names: the same predictions make the same page.
    with matplotlib.rc_context({"svg.hashsalt": "pathology"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
