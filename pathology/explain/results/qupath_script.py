"""A Groovy script that shows a heatmap in QuPath in its place, for QuPath has no menu to do so.

QuPath crops slides to ``openslide.bounds``, and draws a picture over whole pixels of the slide. All
that is to be computed is computed here and stands in the script as numbers: the map's corner less
the bounds', its true size of n pixels, never stretched to the slide's, and its colours. Either edge
is rounded to whole level-0 pixels, so a map pixel lies at most half a level-0 pixel from its place.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from bcos_vit.render import STEPS, heat
from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file
from pathology.slides import Slide

TEMPLATE = Path(__file__).parent / "templates" / "heatmap.groovy.j2"
MAX_PIXELS = 25_000_000
"""Of the map that the script holds in memory; larger ones are shown at a reduced level."""
SMALLEST_LEVEL = 512
"""Side below which a map has no further level that the script could want."""
COLOURS_PER_LINE = 11


@dataclass(frozen=True)
class PlacedLevel:
    """One level of a map's pyramid on a slide.

    Args:
        size: its width and height in pixels.
        box: the level-0 rectangle that they cover, from the slide's corner; not rounded.
        scale: what a pixel's value is multiplied by to be logits per mm2.
    """

    size: tuple[int, int]
    box: Box
    scale: float

    def region(self, x: float = 0.0, y: float = 0.0) -> tuple[int, int, int, int]:
        """x, y, width and height in whole level-0 pixels that count from ``(x, y)``.

        Each edge is the nearest whole pixel.
        """
        left, top = round(self.box.x - x), round(self.box.y - y)
        right, bottom = round(self.box.right - x), round(self.box.bottom - y)
        return left, top, right - left, bottom - top


def placed_levels(slide_map: SlideMap) -> list[PlacedLevel]:
    """The levels that :func:`~pathology.maps.ome_tiff.write_ome_tiff` gives a map, finest first.

    Raises:
        ValueError: a map that is neither in ``"logit"`` nor ``"logit/mm2"``.
    """
    if slide_map.unit not in ("logit", "logit/mm2"):
        raise ValueError(f'a heatmap is in "logit" or "logit/mm2", got {slide_map.unit!r}')
    levels = []
    height, width = slide_map.values.shape
    (pixel_x, pixel_y), box = slide_map.downsample, slide_map.box
    area = slide_map.pixel_area_mm2
    while True:
        # An odd level reaches one finer pixel further; the size of a pixel is what doubles.
        place = Box(box.x, box.y, width * pixel_x, height * pixel_y)
        scale = 1.0 if slide_map.unit == "logit/mm2" else 1.0 / area
        levels.append(PlacedLevel((width, height), place, scale))
        if max(width, height) <= SMALLEST_LEVEL:
            return levels
        width, height = -(-width // 2), -(-height // 2)
        pixel_x, pixel_y, area = 2 * pixel_x, 2 * pixel_y, 4 * area


def write_qupath_script(
    path: str | Path,
    slide: Slide,
    slide_map: SlideMap,
    *,
    target: str,
    limit: float,
    metadata: Mapping[str, Any] | None = None,
    raster: str = "heatmap.ome.tif",
    tiles: str = "tiles.geojson.gz",
) -> Path:
    """Write the script that shows a map, and its tiles, on its slide in QuPath.

    It looks for both files in its own folder, says which slide it expects, and refuses an image of
    another size or file name.

    Args:
        path: file to write, by custom ``heatmap.groovy``; an existing one is replaced.
        slide: the slide.
        slide_map: the map in ``raster``, in ``"logit/mm2"``, or ``"logit"`` with levels of sums.
        target: what is explained.
        limit: logits per mm2 at which colours saturate, as in the overlay's picture.
        metadata: the explanation's record, kept as a comment at the script's end.
        raster: name of the map's OME-TIFF.
        tiles: name of the file of
            :func:`~pathology.explain.results.tile_features.write_tile_features`.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
        ValueError: another unit, a limit that is not positive and finite, or metadata that JSON
            cannot hold.
    """
    path = Path(path)
    if not (limit > 0.0 and math.isfinite(limit)):
        raise ValueError(f"limit must be positive and finite, got {limit}")
    bounds = slide.bounds
    levels = placed_levels(slide_map)
    script = _template().render(
        limit=repr(float(limit)),
        max_pixels=MAX_PIXELS,
        target=target,
        slide_file=slide.path.name if slide.path else slide.slide_id,
        raster=raster,
        tiles=tiles,
        cropped=[round(bounds.width), round(bounds.height)],
        whole=[round(slide.size.width), round(slide.size.height)],
        levels=[
            {
                "size": level.size,
                "cropped": level.region(bounds.x, bounds.y),
                "whole": level.region(),
                "scale": repr(level.scale),
            }
            for level in levels
        ],
        colours=_colours(),
        record=json.dumps(dict(metadata or {}), allow_nan=False),
    )
    with complete_file(path) as draft:
        draft.write_text(script, encoding="ascii")
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Groovy, not HTML
    )
    environment.filters["groovy"] = groovy_string
    return environment.get_template(TEMPLATE.name)


def groovy_string(text: str) -> str:
    """``text`` as a Groovy literal in ASCII that means just it, whatever it holds."""
    # JSON's escapes are Groovy's; a dollar would begin an expression.
    return json.dumps(text).replace("$", "\\$")


def _colours() -> list[str]:
    """The colours of :func:`~bcos_vit.render.heat` from limit to limit, as hex digits."""
    shades = heat(np.linspace(-1.0, 1.0, 2 * STEPS - 1), 1.0)
    words = [f"{opacity:02x}{red:02x}{green:02x}{blue:02x}" for red, green, blue, opacity in shades]
    starts = range(0, len(words), COLOURS_PER_LINE)
    return ["".join(words[start : start + COLOURS_PER_LINE]) for start in starts]
