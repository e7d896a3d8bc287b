"""A slide with its signed heat on it, as one picture with scale bar, colour bar and score.

Colours are logits per square millimetre, symmetric about zero, so pictures made at different pixel
sizes compare; how much lies beyond the colours is printed. The map is placed by its own box, at
its true size: its last pixels may reach over the slide's edge and are cut there, never squeezed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from bcos_vit.render import PALETTE, heat, symmetric_limit
from pathology.geometry import Box, Mpp, Size
from pathology.maps.pyramid import shrink
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file

FONT = "DejaVu Sans"
"""Comes with matplotlib: the same letters on every machine."""
STYLE: Sequence[str | dict[str, Any]] = ["default", {"font.family": FONT}]
"""Of pictures: matplotlib's own, whatever is set around them."""


@dataclass(frozen=True)
class HeatLayer:
    """A slide map made ready to be looked at.

    Args:
        density: ``(height, width)`` in logits per mm2; NaN where nothing was measured.
        box: the level-0 rectangle that all its pixels cover.
        slide_mpp: micrometres per level-0 pixel.
        limit: the density at which colours saturate.
        clipped: share of the covered pixels beyond the limit, in [0, 1].
    """

    density: NDArray[np.float64]
    box: Box
    slide_mpp: Mpp
    limit: float
    clipped: float

    @property
    def clipped_text(self) -> str:
        """The clipped share as words for a legend."""
        return clipped_text(self.clipped, "covered area")

    @property
    def has_gaps(self) -> bool:
        """Whether somewhere nothing was measured."""
        return not np.isfinite(self.density).all()

    def with_limit(self, limit: float) -> "HeatLayer":
        """The same in other colours."""
        return replace(self, limit=limit, clipped=_clipped(self.density, limit))


def clipped_text(share: float, whole: str) -> str:
    """How much of ``whole`` lies beyond the colours, as words for a legend."""
    if share == 0.0:
        return "nothing is beyond the colours"
    percent = f"{100 * share:.1f} %" if share >= 0.0005 else "under 0.1 %"
    return f"{percent} of the {whole} is beyond the colours"


def heat_layer(
    slide_map: SlideMap,
    *,
    limit: float | None = None,
    quantile: float = 0.995,
    max_side: int = 2048,
    weights: NDArray[Any] | None = None,
) -> HeatLayer:
    """Bring a map to a size for pictures and to logits per mm2.

    Args:
        slide_map: additive in ``"logit"``, or a density in ``"logit/mm2"``.
        limit: density at which colours saturate; by default the ``quantile`` of ``|density|``,
            rounded up to two digits. Give one to compare slides.
        quantile: see ``limit``.
        max_side: a larger map is reduced by 2 x 2 sums (densities: weighted means) until it fits.
        weights: ``(height, width)`` what a density's pixels weigh in these, the map's coverage; all
            the same when omitted.

    Raises:
        ValueError: another unit, a limit that is not positive and finite, weights of sums.
    """
    if slide_map.unit == "logit" and weights is None:
        small = shrink(slide_map, max_side, "sum")
        density = np.asarray(small.values, dtype=np.float64) / small.pixel_area_mm2
    elif slide_map.unit == "logit/mm2":
        small = shrink(slide_map, max_side, "mean", weights)
        density = np.asarray(small.values, dtype=np.float64)
    else:
        found = f"{slide_map.unit!r}{' with weights' * (slide_map.unit == 'logit')}"
        raise ValueError(f'a heat layer needs "logit" or "logit/mm2", got {found}')
    if limit is None:
        limit = round_up(symmetric_limit(density, quantile))
    elif not (limit > 0.0 and math.isfinite(limit)):
        raise ValueError(f"limit must be positive and finite, got {limit}")
    clipped = _clipped(density, limit)
    return HeatLayer(density, small.box, small.slide_mpp, limit, clipped)


def _clipped(density: NDArray[np.float64], limit: float) -> float:
    sizes = np.abs(density[np.isfinite(density)])
    return float((sizes > limit).mean()) if sizes.size else 0.0


def round_up(number: float) -> float:
    """The next larger number of two significant digits, for legends that read well."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    # The division leaves rounding errors, which must not buy a whole step.
    return float(f"{math.ceil(number / step - 1e-9) * step:.2g}")


def signed(number: float, digits: int = 3) -> str:
    """A number with its sign, fixed digits and a true minus; plain ``0`` for zero."""
    text = f"{number:+,.{digits}f}".replace("-", "\u2212").replace(",", "\u202f")
    return "0" if number == 0 else text


def tick(number: float) -> str:
    """A number for a scale: its sign, three digits, a true minus; plain ``0`` for zero."""
    text = f"{number:+,.0f}" if 1000 <= abs(number) < 1e6 else f"{number:+.3g}"
    return "0" if number == 0 else text.replace("-", "\u2212").replace(",", "\u202f")


def printable(text: str) -> str:
    """``text`` in one line, with a box for what the pictures' font does not have."""
    have = _letters()
    return "".join(letter if ord(letter) in have else "\u25a1" for letter in " ".join(text.split()))


@cache
def _letters() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def json_record(metadata: Mapping[str, Any]) -> str:
    """A record as the JSON that files carry.

    Raises:
        ValueError: it holds something else than JSON has, NaN and infinity included.
    """
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be JSON with finite numbers: {error}") from error


def scale_bar(width_um: float) -> tuple[float, str]:
    """A round length of at most a quarter of ``width_um``: micrometres and label."""
    longest = width_um / 4
    decade = 10.0 ** math.floor(math.log10(longest))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= longest)
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"


def overlay_png(
    thumbnail: NDArray[np.uint8],
    slide_map: SlideMap,
    path: str | Path,
    *,
    slide_size: Size,
    slide_id: str,
    target: str,
    score: float,
    limit: float | None = None,
    opacity: float = 0.9,
    grey: bool = True,
    max_side: int = 2048,
    metadata: Mapping[str, Any] | None = None,
) -> HeatLayer:
    """Write the slide with its heat as a PNG.

    Args:
        thumbnail: ``(height, width, 3)``, the whole slide at any size.
        slide_map: contributions in ``"logit"``, or a density in ``"logit/mm2"``.
        path: file to write; an existing one is replaced.
        slide_size: the slide in level-0 pixels.
        slide_id: printed in the title.
        target: the class that is explained.
        score: the slide's score for it, in logits.
        limit: see :func:`heat_layer`.
        opacity: of the strongest colours, in [0, 1].
        grey: show the tissue in grey, so that every colour is the map's; a pale blue is lost on
            haematoxylin, a pale orange on eosin.
        max_side: see :func:`heat_layer`.
        metadata: anything JSON holds; kept in the text chunk ``bcos_pathology``.

    Returns:
        What was drawn: its density, limit and clipped share.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a unit, limit or opacity that cannot be drawn, metadata that JSON cannot hold.
    """
    path = Path(path)
    chunks = {"bcos_pathology": json_record(metadata)} if metadata is not None else {}
    layer = heat_layer(slide_map, limit=limit, max_side=max_side)
    with style.context(STYLE):
        figure = overlay_figure(
            thumbnail, layer, slide_size, slide_id, target, score, opacity, grey
        )
        with complete_file(path) as draft:
            figure.savefig(draft, format="png", metadata=chunks)
    return layer


def overlay_figure(
    thumbnail: NDArray[np.uint8],
    layer: HeatLayer,
    slide_size: Size,
    slide_id: str,
    target: str,
    score: float,
    opacity: float = 0.9,
    grey: bool = True,
    titled: bool = True,
) -> Figure:
    """The picture that :func:`overlay_png` writes, 8 inches and edges; draw it in :data:`STYLE`."""
    slide_id, target = printable(slide_id), printable(target)
    width_um = slide_size.width * layer.slide_mpp.x
    height_um = slide_size.height * layer.slide_mpp.y
    # Inches; the slide is 8 on its longer side, what surrounds it has a fixed size.
    scale = 8.0 / max(width_um, height_um)
    wide, tall = max(width_um * scale, 5.0), max(height_um * scale, 1.0)
    head, foot, edge = 0.75 if titled else 0.1, 0.95, 0.3
    figure = Figure(figsize=(wide + 2 * edge, tall + head + foot), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    total = tall + head + foot
    axes = figure.add_axes(
        (edge / (wide + 2 * edge), foot / total, wide / (wide + 2 * edge), tall / total)
    )
    slide = (
        np.asarray(Image.fromarray(thumbnail).convert("L").convert("RGB")) if grey else thumbnail
    )
    _draw_slide(axes, slide, layer, slide_size, opacity)
    draw_scale_bar(axes, slide_size, layer.slide_mpp)

    left = edge / (wide + 2 * edge)
    words: dict[str, Any] = {"parse_math": False, "va": "bottom", "color": "#1b2430"}
    if titled:
        # A bold letter is about two thirds as wide as its size; long names get smaller, not cut.
        points = min(13.0, 72 * wide / (0.68 * max(1, len(slide_id))))
        figure.text(left, 1 - 0.36 / total, slide_id, fontsize=points, weight="bold", **words)
        line = f"evidence for and against {target}    score {signed(score)} logits"
        points = min(10.0, 72 * wide / (0.6 * len(line)))
        figure.text(left, 1 - 0.62 / total, line, fontsize=points, **words)

    bar = figure.add_axes((left, 0.62 / total, min(4.5, wide) / (wide + 2 * edge), 0.14 / total))
    colours = ScalarMappable(
        Normalize(-layer.limit, layer.limit), ListedColormap(PALETTE[:-1] / 255)
    )
    figure.colorbar(colours, cax=bar, orientation="horizontal")
    ticks = [share * layer.limit for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    bar.set_xticks(ticks, [tick(number) for number in ticks], fontsize=8)
    note = f"logits per mm²: blue against, orange for; {layer.clipped_text}"
    figure.text(left, 0.12 / total, note, fontsize=8, **words)
    return figure


def _draw_slide(
    axes: Axes, thumbnail: NDArray[np.uint8], layer: HeatLayer, slide_size: Size, opacity: float
) -> None:
    """Slide and heat in level-0 coordinates, each at its own extent."""
    box = layer.box
    axes.imshow(
        thumbnail, extent=(0, slide_size.width, slide_size.height, 0), interpolation="antialiased"
    )
    axes.imshow(
        heat(layer.density, layer.limit, opacity),
        extent=(box.x, box.right, box.bottom, box.y),
        # A pixel of the map is a measured area; smoothing it would show what nobody computed.
        interpolation="nearest",
    )
    axes.set_xlim(0, slide_size.width)
    axes.set_ylim(slide_size.height, 0)
    axes.set_aspect(layer.slide_mpp.y / layer.slide_mpp.x)
    axes.set_axis_off()


def draw_scale_bar(
    axes: Axes, slide_size: Size, slide_mpp: Mpp, points: float = 9.0, thickness: float = 0.005
) -> None:
    """A bar of a round length at the bottom left of a slide in level-0 coordinates.

    Args:
        axes: what the slide is drawn in.
        slide_size: the slide in level-0 pixels.
        slide_mpp: micrometres per level-0 pixel.
        points: size of its label.
        thickness: of the bar, in shares of the slide's longer side.
    """
    length_um, label = scale_bar(slide_size.width * slide_mpp.x)
    height_um = slide_size.height * slide_mpp.y
    # Of the longer side, which is as long in every picture: as thick on a narrow slide.
    unit_um = 2 * thickness * max(slide_size.width * slide_mpp.x, height_um)
    length, left = length_um / slide_mpp.x, unit_um / slide_mpp.x
    thick = 0.5 * unit_um / slide_mpp.y
    y = (height_um - 1.5 * unit_um) / slide_mpp.y
    # The white edge lies below, or it would take a line's width off the length.
    for colour, edge in (("white", 2 * points / 9), ("black", 0.0)):
        axes.add_patch(
            Rectangle((left, y), length, thick, fc=colour, ec="white", lw=edge, zorder=5)
        )
    axes.annotate(
        label,
        (left, y),
        (0, 4),
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=points,
        color="black",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
        zorder=5,
    )
