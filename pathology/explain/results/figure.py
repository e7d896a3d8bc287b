"""A figure of a slide's explanations as papers print them: slide, heatmaps on one scale, ledger.

Text stays text (fonts embedded as TrueType), pictures are rasters of a stated density. The same
input gives the same bytes: the date in the file is that of the record, not of the drawing.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

import bcos_vit
from bcos_vit.render import PALETTE, heat
from pathology.explain.ledger import Ledger
from pathology.explain.results.overlay import (
    FONT,
    STYLE,
    HeatLayer,
    clipped_text,
    draw_scale_bar,
    heat_layer,
    json_record,
    printable,
    signed,
    tick,
)
from pathology.geometry import Mpp, Size
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file

WIDTH_MM = 180.0
"""Two columns of most journals."""
TALLEST_MM = 160.0
"""What all rows of pictures share; a page has room for the rest below them."""
MARGIN_MM, GAP_MM, LINE_MM = 2.0, 3.5, 3.2
SCALE_MM, BAR_MM, NARROW_MM = 74.0, 0.8, 42.0
POINTS, SMALL, SMALLEST = 7.0, 5.0, 0.65
INK, QUIET, HATCH = "#1b2430", "#55606e", "#aab3be"
DATE = "%Y-%m-%d %H:%M UTC"
PRINT: Sequence[str | dict[str, Any]] = [
    *STYLE,
    {"pdf.fonttype": 42, "text.parse_math": False, "hatch.linewidth": 0.35},
]


@dataclass(frozen=True)
class Panel:
    """One heatmap of a figure.

    Args:
        target: what is explained.
        ledger: how its score adds up.
        slide_map: contributions in ``"logit"``, or a density in ``"logit/mm2"``.
        weights: what a density's pixels weigh when it is reduced, see
            :func:`~pathology.explain.results.overlay.heat_layer`.
    """

    target: str
    ledger: Ledger
    slide_map: SlideMap
    weights: NDArray[Any] | None = None


@dataclass(frozen=True)
class SlideFigure:
    """What a figure is made of.

    Args:
        slide_id: the slide's name.
        slide_size: the slide in level-0 pixels.
        slide_mpp: micrometres per level-0 pixel.
        thumbnail: ``(height, width, 3)``, the whole slide at any size.
        panels: one heatmap or more, all in the same colours.
        provenance: what made this, printed below in this order; ``made`` dates the file.
        limit: density at which colours saturate, in logits per mm2; the largest that a panel would
            have by itself when omitted. Give one to compare figures.

    Raises:
        ValueError: no panel.
    """

    slide_id: str
    slide_size: Size
    slide_mpp: Mpp
    thumbnail: NDArray[np.uint8]
    panels: Sequence[Panel]
    provenance: Mapping[str, str] = field(default_factory=dict)
    limit: float | None = None

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError("a figure needs at least one panel")


def write_figure(
    path: str | Path | Sequence[str | Path],
    figure: SlideFigure,
    metadata: Mapping[str, Any] | None = None,
    *,
    dpi: int = 300,
) -> float:
    """Write a figure as PDF or PNG, 180 mm wide.

    Args:
        path: file to write, ``*.pdf`` or ``*.png``, or several, drawn once; existing ones are
            replaced.
        figure: what to draw.
        metadata: the record of what is shown, anything JSON holds; kept whole as the PDF's
            keywords, or as the PNG's text chunk ``bcos_pathology``.
        dpi: of the pictures in a PDF, of all of a PNG.

    Returns:
        The density at which colours saturate, in logits per mm2.

    Raises:
        OutputError: a file cannot be written.
        ValueError: another kind of file; a map, limit or record that cannot be shown.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    for each in paths:
        if each.suffix.lower() not in (".pdf", ".png"):
            raise ValueError(f"a figure is written as .pdf or .png, got {each.name!r}")
    if dpi < 1:
        raise ValueError(f"dpi must be at least 1, got {dpi}")
    record = json_record(metadata or {})
    with style.context(PRINT):
        drawing = _Drawing(figure, dpi)
        drawing.draw()
        for each in paths:
            kind = each.suffix[1:].lower()
            about: dict[str, Any] = {"metadata": _about(figure, record, kind)}
            if kind == "png":
                # A sixth of the time for 7 % of the size.
                about["pil_kwargs"] = {"compress_level": 1}
            with complete_file(each) as draft:
                drawing.canvas.savefig(draft, format=kind, dpi=dpi, **about)
    return drawing.limit


def _about(figure: SlideFigure, record: str, kind: str) -> dict[str, Any]:
    """What a file of this kind says of itself."""
    targets = ", ".join(panel.target for panel in figure.panels)
    software, made = f"bcos-pathology {bcos_vit.__version__}", _date(figure.provenance)
    about: dict[str, Any] = {"Title": f"{figure.slide_id}: {targets}"}
    if kind == "pdf":
        return about | {"Creator": software, "CreationDate": made, "Keywords": record}
    about |= {"Software": software, "bcos_pathology": record}
    return about | ({"Creation Time": made.isoformat()} if made else {})


def _date(provenance: Mapping[str, str]) -> datetime.datetime | None:
    """When the explanation was made, where that is told."""
    try:
        made = datetime.datetime.strptime(provenance.get("made", ""), DATE)
    except ValueError:
        return None
    return made.replace(tzinfo=datetime.UTC)


class _Drawing:
    """A figure being laid out, in millimetres from its top left corner."""

    def __init__(self, figure: SlideFigure, dpi: int) -> None:
        self.figure = figure
        size, mpp = figure.slide_size, figure.slide_mpp
        aspect = (size.height * mpp.y) / (size.width * mpp.x)
        count = len(figure.panels) + 1
        self.columns = max((1, 2, 3), key=lambda columns: _worth(count, columns, aspect))
        self.tall = _tall(count, self.columns, aspect)
        self.rows = math.ceil(count / self.columns)
        self.wide = self.tall / aspect
        # Of a narrow slide the caption is wider than the picture.
        self.cell = min(_widest(self.columns), max(self.wide, NARROW_MM))
        # Pixels of the paper under the slide; a finer map is summed to them, not sampled.
        self.raster = (
            max(1, round(self.wide / 25.4 * dpi)),
            max(1, round(self.tall / 25.4 * dpi)),
        )
        self.layers = self._layers(figure.limit)
        self.limit = self.layers[0].limit
        slide = Image.fromarray(figure.thumbnail).convert("RGB")
        self.slide = slide.resize(self.raster, Image.Resampling.LANCZOS)
        self.canvas = Figure(facecolor="white")

    def _layers(self, limit: float | None) -> list[HeatLayer]:
        """The maps at the paper's size, in the same colours."""
        side = max(self.raster)
        layers = [
            heat_layer(panel.slide_map, limit=limit, max_side=side, weights=panel.weights)
            for panel in self.figure.panels
        ]
        largest = max(layer.limit for layer in layers)
        return [layer.with_limit(largest) for layer in layers]

    def draw(self) -> None:
        """Put everything on the canvas."""
        inner, caption = WIDTH_MM - 2 * MARGIN_MM, LINE_MM + 0.4
        ledger, provenance = self._ledger(), self._provenance(inner)
        # Two columns of numbers still fit beside the colours.
        beside = len(self.figure.panels) <= 2
        head = MARGIN_MM + 5.2
        pitch = caption + self.tall + GAP_MM
        below = head + self.rows * pitch
        bar, table = 6.0 + 4 * LINE_MM, (len(ledger) + 1) * LINE_MM
        foot = below + (max(bar, table) if beside else bar + table) + 1.5
        self.height = foot + len(provenance) * 2.2 + MARGIN_MM
        self.canvas.set_size_inches(WIDTH_MM / 25.4, self.height / 25.4)

        self._text(MARGIN_MM, MARGIN_MM + 3.4, self.figure.slide_id, inner, points=9, bold=True)
        for index in range(len(self.layers) + 1):
            row, column = divmod(index, self.columns)
            left, top = MARGIN_MM + column * (self.cell + GAP_MM), head + row * pitch
            self._caption(left, top + LINE_MM - 0.7, index)
            axes = self._axes(left, top + caption, self.wide, self.tall)
            self._picture(axes, self.layers[index - 1] if index else None)
        self._scale(MARGIN_MM, below)
        left = (WIDTH_MM + GAP_MM) / 2 if beside else MARGIN_MM
        self._table(left, WIDTH_MM - MARGIN_MM, below + (0.0 if beside else bar), ledger)
        for row, line in enumerate(provenance, start=1):
            self._text(MARGIN_MM, foot + 2.2 * row - 0.5, line, inner, points=SMALL, colour=QUIET)

    def _caption(self, left: float, base: float, index: int) -> None:
        self._text(
            left, base, chr(ord("a") + index) if index < 26 else f"{index + 1}", 4, bold=True
        )
        words, width = "slide", self.cell - 3.2
        if index:
            panel = self.figure.panels[index - 1]
            words = f"{panel.target}: score {signed(panel.ledger.score)} logits"
            longer = f"evidence for and against {words}"
            words = longer if _width_mm(printable(longer), POINTS) <= width else words
        self._text(left + 3.2, base, words, width)

    def _picture(self, axes: Axes, layer: HeatLayer | None) -> None:
        """The slide; or the slide in grey, heat on it, hatched where no tile was looked at."""
        size = self.figure.slide_size
        placed: dict[str, Any] = {
            "extent": (0.0, size.width, size.height, 0.0),
            "interpolation": "none",
            "aspect": "auto",
        }
        if layer is None:
            axes.imshow(self.slide, **placed)
        else:
            grey = np.asarray(self.slide.convert("L").convert("RGB"))
            density = _sampled(layer, size, self.raster)
            colours = heat(density, layer.limit)
            share = colours[..., 3:] / 255
            mixed = np.rint(colours[..., :3] * share + grey * (1 - share)).astype(np.uint8)
            seen = np.isfinite(density)
            if not seen.all():
                axes.imshow(grey, zorder=1, **placed)
                axes.add_patch(Rectangle((0, 0), size.width, size.height, zorder=2, **HATCHED))
                mixed = np.dstack([mixed, np.where(seen, 255, 0).astype(np.uint8)])
            axes.imshow(mixed, zorder=3, **placed)
        axes.set_xlim(0, size.width)
        axes.set_ylim(size.height, 0)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=QUIET, linewidth=0.5)
        thick = BAR_MM / max(self.wide, self.tall)
        draw_scale_bar(axes, size, self.figure.slide_mpp, POINTS - 1, thick)

    def _scale(self, left: float, top: float) -> None:
        """Colour bar, what its colours leave out, and what hatching means."""
        axes = self._axes(left + 3.0, top, SCALE_MM - 6.0, 2.6)
        colours = ScalarMappable(
            Normalize(-self.limit, self.limit), ListedColormap(PALETTE[:-1] / 255)
        )
        bar = self.canvas.colorbar(colours, cax=axes, orientation="horizontal")
        # As vectors it would be hundreds of slivers with seams between them.
        assert bar.solids is not None
        bar.solids.set_rasterized(True)
        ticks = [share * self.limit for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        axes.set_xticks(ticks, [tick(number) for number in ticks], fontsize=POINTS - 1)
        axes.tick_params(length=2, width=0.5, pad=1.5)
        covered = sum(np.isfinite(layer.density).sum() for layer in self.layers)
        beyond = sum((np.abs(layer.density) > self.limit).sum() for layer in self.layers)
        share = float(beyond / covered) if covered else 0.0
        base = top + 2.6 + 2 * LINE_MM + 0.4
        self._text(
            left,
            base,
            "logits per mm² of slide: blue against, white zero, orange for",
            SCALE_MM + 10,
        )
        self._text(left, base + LINE_MM, clipped_text(share, "covered area"), SCALE_MM + 10)
        if any(layer.has_gaps for layer in self.layers):
            base += 2 * LINE_MM
            swatch = self._axes(left, base - 2.2, 4.0, 2.5)
            swatch.set_axis_off()
            swatch.add_patch(Rectangle((0, 0), 1, 1, **(HATCHED | {"lw": 0.5})))
            self._text(left + 5.4, base, "no tile was looked at here", SCALE_MM)

    def _ledger(self) -> list[list[str]]:
        """Rows of the ledger: a name, and a number per panel."""
        ledgers = [panel.ledger for panel in self.figure.panels]
        names = dict.fromkeys(name for ledger in ledgers for name in ledger.entries)
        # A constant that only some have stands before the map, as in each.
        order = [*(n for n in names if n not in ("map", "cut off")), "map", "cut off"]
        rows = [["ledger, in logits", *(panel.target for panel in self.figure.panels)]]
        for name in order:
            rows.append([name, *(signed(ledger.entries.get(name, 0.0), 6) for ledger in ledgers)])
            if name == "map" and any(ledger.undivided for ledger in ledgers):
                parts = [ledger.undivided.net if ledger.undivided else 0.0 for ledger in ledgers]
                rows.append(["of it, undivided", *(signed(part, 6) for part in parts)])
        rows += [
            ["together", *(signed(ledger.total, 6) for ledger in ledgers)],
            ["score of the model", *(signed(ledger.score, 6) for ledger in ledgers)],
            ["gap", *(f"{ledger.gap:.1e}" for ledger in ledgers)],
            ["tolerance", *(f"{ledger.tolerance:.1e}" for ledger in ledgers)],
            [
                "the ledger is",
                *("closed" if ledger.is_closed else "NOT CLOSED" for ledger in ledgers),
            ],
        ]
        return rows

    def _table(self, left: float, right: float, top: float, rows: list[list[str]]) -> None:
        """Names on the left, numbers in columns that end at ``right``; a rule above the total."""
        names = 30.0
        column = min(34.0, (right - left - names) / len(self.figure.panels))
        right = min(right, left + names + column * len(self.figure.panels))
        for number, (name, *values) in enumerate(rows, start=1):
            base = top + number * LINE_MM - 0.7
            first, total = number == 1, name == "together"
            self._text(left, base, name, names - 1, bold=first)
            for index, value in enumerate(reversed(values)):
                self._text(right - index * column, base, value, column - 2, bold=first, end=True)
            if first or total:
                self._rule(left, right, base + (0.0 if first else -LINE_MM) + 0.6)

    def _rule(self, left: float, right: float, y: float) -> None:
        axes = self._axes(left, y, right - left, 0.15)
        axes.set_axis_off()
        axes.add_patch(Rectangle((0, 0), 1, 1, facecolor=QUIET, lw=0))

    def _provenance(self, width: float) -> list[str]:
        """What made the figure, broken into lines between entries where they allow it."""
        entries = [f"{name}: {value}" for name, value in self.figure.provenance.items()]
        words = " \u00b7 ".join(entries).split()
        lines: list[str] = []
        for word in words:
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and _width_mm(printable(longer), SMALL) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def _text(
        self,
        x: float,
        base: float,
        words: str,
        width: float,
        *,
        points: float = POINTS,
        bold: bool = False,
        colour: str = INK,
        end: bool = False,
    ) -> None:
        """A line on its base line; what is too wide gets smaller, then loses its middle."""
        words = printable(words)
        natural = _width_mm(words, points, bold)
        if natural > width:
            points *= max(width / natural, SMALLEST)
            whole, kept = words, math.ceil(len(words) * width / (SMALLEST * natural)) + 2
            while kept and _width_mm(words, points, bold) > width * 1.001:
                kept -= 1
                words = f"{whole[: kept - kept // 2]}\u2026{whole[len(whole) - kept // 2 :]}"
        self.canvas.text(
            x / WIDTH_MM,
            1 - base / self.height,
            words,
            fontsize=points,
            weight="bold" if bold else "normal",
            color=colour,
            ha="right" if end else "left",
            va="baseline",
        )

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        return self.canvas.add_axes(
            (
                left / WIDTH_MM,
                1 - (top + height) / self.height,
                width / WIDTH_MM,
                height / self.height,
            )
        )


HATCHED: dict[str, Any] = {"facecolor": "none", "edgecolor": HATCH, "hatch": "//////", "lw": 0}


def _widest(columns: int) -> float:
    return (WIDTH_MM - 2 * MARGIN_MM - (columns - 1) * GAP_MM) / columns


def _tall(count: int, columns: int, aspect: float) -> float:
    """How tall ``count`` pictures become in so many columns."""
    return min(_widest(columns) * aspect, TALLEST_MM / math.ceil(count / columns))


def _worth(count: int, columns: int, aspect: float) -> float:
    """Large pictures in few rows: half as large again is worth a second row."""
    return _tall(count, columns, aspect) / math.ceil(count / columns) ** 0.6


def _width_mm(words: str, points: float, bold: bool = False) -> float:
    """How wide a line of text is."""
    font = FontProperties(family=FONT, size=points, weight="bold" if bold else "normal")
    wide, _, _ = _PEN.get_text_width_height_descent(words, font, False)
    return float(wide) / 720 * 25.4


_PEN = FigureCanvasAgg(Figure(dpi=720)).get_renderer()


def _sampled(layer: HeatLayer, size: Size, raster: tuple[int, int]) -> NDArray[np.float64]:
    """The map under the centres of a raster's pixels over the whole slide; NaN beside it.

    A pixel of the map is a measured area: smoothing it would show what nobody computed.
    """
    rows, columns = layer.density.shape
    x = (np.arange(raster[0]) + 0.5) * size.width / raster[0]
    y = (np.arange(raster[1]) + 0.5) * size.height / raster[1]
    column = np.floor((x - layer.box.x) / layer.box.width * columns).astype(np.intp)
    row = np.floor((y - layer.box.y) / layer.box.height * rows).astype(np.intp)
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
    at = np.clip(row, 0, rows - 1)[:, None], np.clip(column, 0, columns - 1)
    sampled: NDArray[np.float64] = np.where(inside, layer.density[at], np.nan)
    return sampled
