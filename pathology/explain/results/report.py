"""A slide's explanation as one HTML file that a person reads, prints and archives.

Everything is inside the file: images as data, style and script named by their hash in a content
security policy that allows nothing else, so that it opens the same in ten years and asks nobody
for anything. Slide, map and scale bar share one drawing in micrometres; nothing is stretched.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bcos_vit.render import diverging, heat, symmetric_limit
from pathology.explain.ledger import Ledger
from pathology.explain.results.overlay import (
    HeatLayer,
    clipped_text,
    heat_layer,
    round_up,
    scale_bar,
    signed,
    tick,
)
from pathology.geometry import Box, Mpp, Size
from pathology.maps.pyramid import shrink
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file
from pathology.pages import image_uri, page_template

TEMPLATE = Path(__file__).with_name("templates") / "report.html.j2"
CARRIED_SHARE = 0.8
"""The share of the evidence whose carriers are counted."""
LAYERS = {
    "spread": "How far the members are apart: standard deviation in logits per mm²",
    "agreement": "Share of the members whose sign is that of their mean",
    "null_z": "How far the map is from those of random weights, as normal scores: orange above"
    " them, blue below",
}
"""Layers that are shown, and what they are; see :mod:`pathology.explain.layers.explain`."""


@dataclass(frozen=True)
class ReportTile:
    """One tile of the gallery.

    Args:
        image: ``(height, width, 3)``, what the model saw.
        contributions: ``(height, width)`` pixel contributions to the *slide's* score in logits,
            the tile's weight included; any raster of the same extent as the image.
        box: the tile in level-0 pixels.
        logit: the tile's own logit for the target class, before any weight; None in a slide model,
            where tiles have none.
        weights_picture: RGBA rendering of W(x), see :func:`bcos_vit.render.colour_explanation`.
        removal_effect: the slide's score minus what it would be without the tile, where known.
    """

    image: NDArray[np.uint8]
    contributions: NDArray[Any]
    box: Box
    logit: float | None
    weights_picture: NDArray[np.uint8] | None = None
    removal_effect: float | None = None

    @property
    def contribution(self) -> float:
        """What the tile adds to the slide's score, in logits."""
        return float(np.sum(self.contributions, dtype=np.float64))

    def density(self, slide_mpp: Mpp) -> NDArray[np.float64]:
        """The contributions in logits per mm2."""
        pixels = self.contributions.shape[0] * self.contributions.shape[1]
        pixel_mm2 = self.box.area * slide_mpp.x * slide_mpp.y * 1e-6 / pixels
        density: NDArray[np.float64] = np.asarray(self.contributions, np.float64) / pixel_mm2
        return density


@dataclass(frozen=True)
class Report:
    """What a report is made of.

    Args:
        slide_id: the slide's name.
        target: the class that is explained.
        slide_size: the slide in level-0 pixels.
        slide_mpp: micrometres per level-0 pixel.
        thumbnail: ``(height, width, 3)``, the whole slide at any size.
        slide_map: contributions in ``"logit"``, or a density in ``"logit/mm2"``.
        ledger: how the score adds up.
        tile_contributions: ``(n,)`` what each tile of the slide adds to the score, in logits.
        tiles_for: tiles that argue most for the target, the strongest first.
        tiles_against: tiles that argue most against it, the strongest first.
        provenance: what made this: model, run, checkpoint hash, slide file, stamp, mpp and its
            source, tile specification, output mpp, versions, date; printed in this order.
        limit: density at which the map's colours saturate, in logits per mm2; chosen from the map
            when omitted. Give one to compare slides.
        depth: where explanations stop: ``"pixels"``, or the name of a layer or the head.
        layers: further maps over the slide by name; of those in :data:`LAYERS` a picture is shown.
    """

    slide_id: str
    target: str
    slide_size: Size
    slide_mpp: Mpp
    thumbnail: NDArray[np.uint8]
    slide_map: SlideMap
    ledger: Ledger
    tile_contributions: NDArray[Any]
    tiles_for: Sequence[ReportTile] = ()
    tiles_against: Sequence[ReportTile] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    limit: float | None = None
    depth: str = "pixels"
    layers: Mapping[str, SlideMap] = field(default_factory=dict)


def write_report(path: str | Path, report: Report, *, max_side: int = 1400) -> Path:
    """Write the report as one self-contained HTML file.

    Args:
        path: file to write; an existing one is replaced.
        report: what to show.
        max_side: largest side of the slide's and the map's picture, in pixels.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a map that is neither in ``"logit"`` nor ``"logit/mm2"``.
    """
    path = Path(path)
    html = render_report(report, max_side=max_side)
    with complete_file(path) as draft:
        draft.write_text(html, encoding="utf-8")
    return path


def render_report(report: Report, *, max_side: int = 1400) -> str:
    """The HTML that :func:`write_report` writes."""
    layer = heat_layer(report.slide_map, limit=report.limit, max_side=max_side)
    tiles = [*report.tiles_for, *report.tiles_against]
    densities = [np.abs(tile.density(report.slide_mpp)).ravel() for tile in tiles]
    tile_density = np.concatenate(densities) if tiles else np.zeros(1)
    tile_limit = round_up(symmetric_limit(tile_density))
    evidence = np.asarray(report.tile_contributions, dtype=np.float64)
    sides = (
        ("for", "F", evidence, report.tiles_for),
        ("against", "A", -evidence, report.tiles_against),
    )
    return page_template(TEMPLATE, {"signed": signed, "tick": tick}).render(
        report=report,
        ledger=report.ledger,
        figure=_figure(report, layer, max_side),
        layer=layer,
        layers=[_layer(report, name, max_side) for name in LAYERS if name in report.layers],
        ramp=_png(diverging(np.linspace(-1.0, 1.0, 511)[None], 1.0)),
        tile_limit=tile_limit,
        tile_clipped=clipped_text(float((tile_density > tile_limit).mean()), "tiles' area"),
        carried=f"{CARRIED_SHARE:.0%}".replace("%", " %"),
        evidence=[_evidence(name, amounts) for name, _, amounts, _ in sides],
        sides=[
            {
                "name": name,
                "cards": [
                    _card(tile, f"{letter}{i}", tile_limit, report, amounts)
                    for i, tile in enumerate(chosen, start=1)
                ],
            }
            for name, letter, amounts, chosen in sides
        ],
    )


def carriers(amounts: NDArray[np.float64], share: float = CARRIED_SHARE) -> int:
    """The fewest tiles that together carry ``share`` of all positive amounts.

    Args:
        amounts: ``(n,)`` evidence per tile; what is not positive is left out.
        share: in (0, 1].
    """
    positive = np.sort(amounts[amounts > 0])[::-1]
    if not positive.size:
        return 0
    carried = np.cumsum(positive)
    # All of it must be reachable whatever the rounding of the running sum.
    reached = int(np.searchsorted(carried, share * carried[-1] * (1 - 1e-12)))
    return min(reached + 1, positive.size)


def _evidence(name: str, amounts: NDArray[np.float64]) -> dict[str, Any]:
    """One side's total, its carriers and the curve of what the first tiles carry."""
    positive = np.sort(amounts[amounts > 0])[::-1]
    points = "0,100"
    if positive.size:
        carried = np.cumsum(positive) / positive.sum()
        shown = np.unique(np.linspace(0, positive.size - 1, 160).astype(int))
        x, y = 200 * (shown + 1) / amounts.size, 100 * (1 - carried[shown])
        pairs = [f"{a:.2f},{b:.2f}" for a, b in zip(x, y, strict=True)]
        points = " ".join([points, *pairs])
    return {
        "name": name,
        "total": float(positive.sum()) * (1 if name == "for" else -1),
        "tiles": int(positive.size),
        "all_tiles": int(amounts.size),
        "carriers": carriers(amounts),
        "points": points,
    }


def _figure(report: Report, layer: HeatLayer, max_side: int) -> dict[str, Any]:
    """Slide, map and scale bar in micrometres from the slide's top left corner."""
    mpp, size = report.slide_mpp, report.slide_size
    width, height = size.width * mpp.x, size.height * mpp.y
    slide = Image.fromarray(report.thumbnail)
    slide.thumbnail((max_side, max_side))
    bar, label = scale_bar(width)
    signed = np.dstack(
        [diverging(layer.density, layer.limit), 255 * np.isfinite(layer.density)]
    ).astype(np.uint8)
    return {
        "width": width,
        "height": height,
        # A hundredth of the panel's width; a tall slide is bounded by the panel's height instead.
        "unit": max(width, 0.4 * height) / 100,
        "slide": _jpeg(slide),
        "signed": _png(signed),
        "heat": _png(heat(layer.density, layer.limit, opacity=1.0)),
        "box": _um(layer.box, mpp),
        "bar": bar,
        "bar_label": label,
        "tiles": [
            {"name": f"{letter}{i}", **_um(tile.box, mpp)}
            for letter, chosen in (("F", report.tiles_for), ("A", report.tiles_against))
            for i, tile in enumerate(chosen, start=1)
        ],
    }


def _layer(report: Report, name: str, max_side: int) -> dict[str, Any]:
    """A layer as a picture: in grey what has no sign, in the map's colours what has one."""
    layer = report.layers[name]
    small = shrink(layer, max_side, "mean")
    values = np.asarray(small.values, np.float64)
    if name == "spread":
        values = values / layer.pixel_area_mm2
    limit = 1.0 if name == "agreement" else round_up(symmetric_limit(values))
    if name == "null_z":
        colours = diverging(values, limit)
    else:
        share = np.clip(np.nan_to_num(values) / limit, 0.0, 1.0)
        colours = np.repeat(np.rint(245 - 225 * share)[..., None], 3, axis=2)
    seen = 255 * np.isfinite(values)
    return {
        "words": LAYERS[name],
        "picture": _png(np.dstack([colours, seen]).astype(np.uint8)),
        "box": _um(small.box, report.slide_mpp),
        "least": tick(-limit) if name == "null_z" else "0",
        "most": tick(limit) if name == "null_z" else f"{limit:g}",
    }


def _card(
    tile: ReportTile, name: str, limit: float, report: Report, amounts: NDArray[np.float64]
) -> dict[str, Any]:
    """One tile of the gallery, with its share of all evidence on its side."""
    total = float(amounts[amounts > 0].sum())
    side = 1 if name.startswith("F") else -1
    picture = tile.weights_picture
    return {
        "name": name,
        "image": _jpeg(Image.fromarray(tile.image)),
        "signed": _png(diverging(tile.density(report.slide_mpp), limit)),
        "weights": None if picture is None else _png(picture),
        "logit": tile.logit,
        "removal_effect": tile.removal_effect,
        "contribution": tile.contribution,
        "share": side * tile.contribution / total if total > 0 else math.nan,
        "box": tile.box,
        "um": _um(tile.box, report.slide_mpp),
    }


def _um(box: Box, mpp: Mpp) -> dict[str, float]:
    """A level-0 box in micrometres."""
    return {
        "x": box.x * mpp.x,
        "y": box.y * mpp.y,
        "width": box.width * mpp.x,
        "height": box.height * mpp.y,
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    return image_uri(Image.fromarray(pixels), "png", optimize=True)


def _jpeg(image: Image.Image) -> str:
    return image_uri(image.convert("RGB"), "jpeg", quality=88, subsampling=0)
