"""What a file says of a slide map besides its pixels: the same record in every format."""

import json
from collections.abc import Mapping
from typing import Any, cast

from numpy.typing import NDArray

from pathology.geometry import Box, Mpp
from pathology.maps.pyramid import Levels
from pathology.maps.slide_map import SlideMap

REDUCED = {
    "sum": "sums of 2 x 2 pixels of the level before, so that every level has the same total",
    "mean": "means of 2 x 2 pixels of the level before, weighted by coverage",
}


def describe(
    slide_map: SlideMap, levels: Levels | None, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Placement, unit and kind of levels, and what the writer was given besides.

    Args:
        slide_map: the map.
        levels: what reduced levels hold, ``None`` where there are none.
        metadata: JSON values by name.

    Returns:
        JSON values: ``slide_map`` with ``box`` (x, y, width, height in the slide's level-0 pixels),
        ``slide_mpp``, ``shape``, ``unit`` and ``levels``; and ``metadata``.

    Raises:
        ValueError: metadata that JSON cannot hold; NaN and infinity are none of it.
    """
    height, width = slide_map.values.shape
    box = slide_map.box
    try:
        given = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be JSON with finite numbers: {error}") from error
    return {
        "slide_map": {
            "box": [float(number) for number in (box.x, box.y, box.width, box.height)],
            "slide_mpp": [float(mpp) for mpp in slide_map.slide_mpp],
            "shape": [height, width],
            "unit": slide_map.unit,
            "levels": levels,
        },
        "metadata": given,
    }


def described(
    values: NDArray[Any], record: Mapping[str, Any], level: int = 0
) -> tuple[SlideMap, dict[str, Any]]:
    """The map that pixels of a level and a record of :func:`describe` make, and its metadata."""
    placed = record["slide_map"]
    x, y, width, height = placed["box"]
    full_height, full_width = placed["shape"]
    # Odd levels reach one finer pixel further; the pixel size is what stays constant.
    scale_x, scale_y = width / full_width * 2**level, height / full_height * 2**level
    box = Box(x, y, values.shape[1] * scale_x, values.shape[0] * scale_y)
    metadata = cast("dict[str, Any]", record["metadata"])
    return SlideMap(values, box, Mpp(*placed["slide_mpp"]), placed["unit"]), metadata


def sentence(slide_map: SlideMap, levels: Levels | None) -> str:
    """What a person should know who opens the file with somebody else's program."""
    down_x, down_y = slide_map.downsample
    reduced = f"Reduced levels hold {REDUCED[levels]}. " if levels else ""
    return (
        f"Values in {slide_map.unit or 'no unit'}; NaN where nothing was measured. {reduced}"
        f"A pixel covers {down_x:.10g} x {down_y:.10g} pixels of the "
        f"slide's finest level; the first begins {slide_map.box.x:.10g}, {slide_map.box.y:.10g} of "
        "them right of and below the top left corner of the slide as it is stored."
    )
