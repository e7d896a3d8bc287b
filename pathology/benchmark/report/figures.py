"""Figures: means with intervals, critical differences, quality against cost."""

import base64
import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.ranking import FAMILIES, Ranking
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control, is_ours
from pathology.metrics.figures import COLOURS, FAINT, INK

MARKERS = "osD^vPX*"
_WIDTH = 11.0  # inches of a figure as wide as the page
_MOST_PANELS = 6
"""Side by side; more are put below."""


def dot_figure(study: Study, data: str, metrics: Sequence[Metric]) -> Figure | None:
    """Every method's mean by every metric, with its interval; a marker per network.

    Filled markers are B-cos networks, hollow ones conventional; patients are drawn as a whole.
    """
    shown = [m for m in metrics if any(p.data == data for p in study.panels(m))]
    if not shown:
        return None
    panels = {m: [p for p in study.panels(m) if p.data == data] for m in shown}
    names = [n for n in study.methods if any(n in p.methods for ps in panels.values() for p in ps)]
    place = {name: -i - 0.6 * is_control(name) for i, name in enumerate(names)}
    networks = list(study.backbones.index)
    pairs = list(dict.fromkeys(study.backbones["pair"]))
    step = 0.7 / max(1, len(networks))
    lines = math.ceil(len(shown) / _MOST_PANELS)
    columns = math.ceil(len(shown) / lines)
    width = 2.0 + (_WIDTH - 2.0) * columns / _MOST_PANELS
    size = max(4.0, width), 0.7 + lines * (0.3 + 0.3 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    grid = places[: len(shown)]
    for axes in places[len(shown) :]:
        axes.axis("off")
    for axes, metric in zip(grid, shown, strict=True):
        for panel in panels[metric]:
            about = study.backbones.loc[panel.backbone]
            i = networks.index(panel.backbone)
            colour = COLOURS[pairs.index(about["pair"]) % len(COLOURS)]
            is_filled = about["family"] == "bcos"
            for name, one in zip(panel.methods, panel.estimates, strict=True):
                y = place[name] + 0.35 - step * (i + 0.5)
                if not math.isnan(one.low):
                    axes.plot([one.low, one.high], [y, y], color=colour, linewidth=1.2)
                axes.plot(
                    one.value, y, MARKERS[pairs.index(about["pair"]) % len(MARKERS)], color=colour,
                    markersize=4.5, markerfacecolor=colour if is_filled else "#ffffff",
                    label=panel.backbone if name == panel.methods[0] else None,
                )  # fmt: skip
        for name, y in place.items():
            if is_ours(name):
                axes.axhspan(y - 0.5, y + 0.5, color=FAINT, alpha=0.25, linewidth=0)
        side = {1: "higher is better", -1: "lower is better"}.get(metric.sign, "")
        axes.set_title(metric.title, fontsize=10, color=INK)
        axes.set_xlabel(side, fontsize=8, color=INK)
        _style(axes)
    grid[0].set_yticks(list(place.values()), list(place))
    grid[0].set_ylim(min(place.values()) - 0.6, 0.6)
    labels: dict[str, Artist] = {}
    for axes in grid:
        handles, texts = axes.get_legend_handles_labels()
        labels |= dict(zip(texts, handles, strict=True))
    figure.legend(
        list(labels.values()), list(labels), loc="outside upper center",
        ncols=min(6, len(labels), 2 * columns), fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


def critical_difference_figure(ranking: Ranking) -> Figure:
    """Mean ranks on a line; bars join what Nemenyi's test does not tell apart (Demšar 2006)."""
    mean = ranking.mean
    order = np.argsort(mean, kind="stable")
    count = len(order)
    half = (count + 1) // 2
    bars = ranking.cliques
    top = 0.45 + 0.16 * len(bars)
    height = 1.0 + top * 0.45 + 0.24 * half
    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(1 - 0.62 * count, count + 0.62 * count)
    axes.set_ylim(-top - 0.42 * half - 0.3, 1.2)
    axes.axis("off")
    axes.plot([1, count], [0, 0], color=INK, linewidth=1)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.12], color=INK, linewidth=1)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8, color=INK)
    shown = min(ranking.difference, count - 1)
    axes.plot([1, 1 + shown], [0.85, 0.85], color=INK, linewidth=1.4)
    more = "" if shown == ranking.difference else " (longer than the axis)"
    axes.text(1, 0.95, f"CD {ranking.difference:.2f}{more}", fontsize=8, color=INK, va="bottom")
    for i, bar in enumerate(bars):
        y = -0.3 - 0.16 * i
        ends = mean[bar[0]] - 0.06, mean[bar[-1]] + 0.06
        axes.plot(ends, [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    for i, index in enumerate(order):
        is_left = i < half
        y = -top - 0.42 * (i if is_left else count - 1 - i)
        end = 1 - 0.08 * count if is_left else count + 0.08 * count
        name = ranking.methods[index]
        colour = COLOURS[0] if is_ours(name) else INK
        axes.plot([mean[index], mean[index], end], [0, y, y], color=colour, linewidth=0.9)
        label = f"{name}  {mean[index]:.2f}" if is_left else f"{mean[index]:.2f}  {name}"
        axes.text(
            end - 0.03 * count if is_left else end + 0.03 * count, y, label, va="center",
            ha="right" if is_left else "left", fontsize=8, color=colour,
            fontweight="bold" if is_ours(name) else "normal",
        )  # fmt: skip
    return figure


def cost_figure(study: Study, metric: Metric, seconds: Metric) -> Figure | None:
    """Mean quality of a map against the seconds it takes, a panel per family of networks.

    A point is a method's mean over networks and tile sets; no interval is shown.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for panel in study.panels(metric):
        cost = study.panel(panel.data, panel.backbone, seconds)
        if cost is None:
            continue
        family = str(study.backbones.loc[panel.backbone, "family"])
        for name, mean in zip(panel.methods, panel.means, strict=True):
            column = cost.column(name)
            if column is not None and not is_control(name) and cost.means[column] > 0:
                pair = (float(cost.means[column]), float(mean))
                if not math.isnan(sum(pair)):
                    points.setdefault(family, {}).setdefault(name, []).append(pair)
    kinds = [one for one in FAMILIES if one in points]
    if not kinds:
        return None
    figure = Figure(figsize=(5.2 * len(kinds), 3.6), layout="constrained")
    grid = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, family in zip(grid, kinds, strict=True):
        for name, found in points[family].items():
            x, y = np.exp(np.mean(np.log([a for a, _ in found]))), np.mean([b for _, b in found])
            colour = COLOURS[0] if is_ours(name) else INK
            axes.plot(x, y, "o", color=colour, markersize=5)
            axes.annotate(
                name, (float(x), float(y)), xytext=(5, 3), textcoords="offset points", fontsize=7.5,
                color=colour,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2, y=0.12)
        axes.set_xlabel("seconds per map (log)", fontsize=9, color=INK)
        axes.set_title(FAMILIES[family], fontsize=10, color=INK)
        _style(axes)
        if family == kinds[0]:
            axes.set_ylabel(metric.title, fontsize=9, color=INK)
    return figure


def svg_uri(figure: Figure) -> str:
    """The figure as an address that an ``img`` shows; without a ground, for light and dark."""
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    # No date and no random names: the same numbers make the same page.
    with matplotlib.rc_context({"svg.hashsalt": "pathology"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def seconds_metric(study: Study) -> Metric | None:
    """How long a map takes, where that was measured."""
    found = [
        m for m in study.metrics() if m.group == "cost" and (m.unit == "s" or "second" in m.name)
    ]
    return found[0] if found else None


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=8.5, colors=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
