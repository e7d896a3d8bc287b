"""The few small figures that docs show, as PNG."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pathology.benchmark.report.figures import (
    cost_figure,
    critical_difference_figure,
    dot_figure,
    seconds_metric,
)
from pathology.benchmark.report.metric import SLIDES, Metric
from pathology.benchmark.report.pictures import GAP, SIDE, Picture, Strip, strips
from pathology.benchmark.report.ranking import rankings
from pathology.benchmark.report.study import Study
from pathology.metrics.figures import INK
from pathology.outputs import complete_file

LABELS = 2.2
"""Inches beside maps."""
COLOURS = 256
"""Of a picture of maps."""


def write_figures(
    study: Study, pictures: Sequence[Picture], folder: Path, dpi: int = 110
) -> list[Path]:
    """The few small figures that docs show, as PNG.

    ``dots_DATA.png``, ``ranks_FAMILY.png`` (all headline metrics together), ``cost.png`` and
    ``maps_DATA_BACKBONE.png``, each with the study's name before it.

    Args:
        study: what was measured.
        pictures: of the study.
        folder: to write to; existing files of these names are replaced.
        dpi: of the PNGs.

    Returns:
        The files.
    """
    named: list[tuple[str, Figure | None]] = [
        (f"dots_{data}", dot_figure(study, data, _without_slides(study.headline)))
        for data in study.data
    ]
    named += [
        (f"ranks_{one.family}", critical_difference_figure(one))
        for one in rankings(study)
        if one.is_overall
    ]
    first, seconds = next(iter(study.headline), None), seconds_metric(study)
    if first is not None and seconds is not None:
        named.append(("cost", cost_figure(study, first, seconds)))
    own = [one for one in pictures if one.study == study.name]
    named += [(f"maps_{s.data}_{s.backbone}", strip_figure(s)) for s in strips(own, most=5)]
    written = []
    for name, figure in named:
        if figure is None:
            continue
        FigureCanvasAgg(figure)
        path = folder / f"{study.name}_{name}.png"
        with complete_file(path) as draft:
            figure.savefig(draft, format="png", dpi=dpi, facecolor="white")
            if name.startswith("maps"):  # of 500 KB, with the noise of maps, 200 are left
                with Image.open(draft) as image:
                    few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
                few.save(draft, format="png", optimize=True)
        written.append(path)
    return written


def strip_figure(strip: Strip) -> Figure:
    """Methods beside the same examples, each with its scale, for the docs."""
    count = len(strip.examples)
    side = SIDE / 100
    wide = count * (SIDE + GAP) / 100
    figure = Figure(figsize=(wide + LABELS, side * len(strip.rows) * 1.04))
    for i, row in enumerate(strip.rows):
        height = 1 / len(strip.rows)
        left = LABELS / (wide + LABELS)
        axes = figure.add_axes((left, 1 - (i + 1) * height, 1 - left, height * 0.96))
        axes.imshow(row.image, interpolation="nearest", aspect="equal")
        axes.axis("off")
        axes.text(
            -0.02, 0.5, f"{row.method or strip.backbone}\n{row.scale}", ha="right", va="center",
            transform=axes.transAxes, fontsize=9, color=INK,
        )  # fmt: skip
    return figure


def _without_slides(metrics: Iterable[Metric]) -> list[Metric]:
    return [one for one in metrics if one.group != SLIDES]
