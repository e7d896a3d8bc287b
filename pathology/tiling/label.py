"""Labels of tiles from the regions on their slide."""

from collections.abc import Iterable

import numpy as np

from pathology.annotations.regions import Regions
from pathology.tiling.grid import TileGrid

# Rounding of sums over areas must not decide a tile that lies on a limit.
ROUNDING = 1e-6


def label_tiles(
    grid: TileGrid,
    regions: Regions,
    classes: Iterable[str] | None = None,
    min_fraction: float = 0.75,
    min_annotated: float = 0.5,
) -> TileGrid:
    """Give every tile the class that covers it, as a column ``label``.

    A tile gets the name of the class with the largest area when that is at least ``min_fraction``
    of the tile's *annotated* area, and the annotated area is at least ``min_annotated`` of the
    tile; else ``""``. The first, because glass between two lobes of a tumour is usually not
    annotated as anything; the second, so that a corner of an annotation does not speak for a whole
    tile. Areas are exact; what counts as annotated the regions say. Of two classes with equal areas
    the first wins. Both fractions are kept with the grid (``made["label"]``), so that labels by
    others are not taken for the same.

    Args:
        grid: the tiles.
        regions: what was drawn or painted on this slide.
        classes: the classes to choose from, in the order in which they win; those of the regions
            when omitted.
        min_fraction: of the annotated area of a tile, 0 to 1.
        min_annotated: of the area of a tile, 0 to 1.

    Raises:
        AnnotationError: the regions cannot be read.
        ValueError: no classes, one that the regions do not have, a fraction outside [0, 1].
    """
    for name, value in (("min_fraction", min_fraction), ("min_annotated", min_annotated)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    names = [*(regions.names if classes is None else classes)]
    if not names:
        raise ValueError("classes must have names, got none")
    boxes = grid.boxes()
    covered, annotated = regions.covered(boxes, names), regions.annotated(boxes)
    most = covered.max(axis=0)
    is_enough = (most >= min_fraction * annotated - ROUNDING) & (most > 0)
    is_enough &= annotated >= min_annotated - ROUNDING
    # Of areas that are equal but for rounding, the first.
    best = (covered >= most - ROUNDING).argmax(axis=0)
    label = np.array([*names, ""])[np.where(is_enough, best, len(names))]
    rule = {"min_fraction": float(min_fraction), "min_annotated": float(min_annotated)}
    return grid.with_columns(label=label).with_made(label=rule)
