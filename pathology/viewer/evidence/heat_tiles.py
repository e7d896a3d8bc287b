"""Maps as they travel: squares of whole numbers, with one step for all levels and places.

::

    value = step * n        step = largest / 32767        n = -32768: nothing was placed there

No value of the map is above ``largest``, so none is cut short, and each is right to half a step.
Infinities, which no reduced level counts either, travel as nothing.
"""

import numpy as np
from numpy.typing import NDArray

from pathology.errors import PathologyError
from pathology.viewer.evidence.maps import EvidenceMap
from pathology.viewer.library.library import UnknownIdError

TILE_PX = 256
NOTHING = -32768
LARGEST = 32767


def step_of(each: EvidenceMap) -> float:
    """What one whole number of a map's tiles is, in the unit shown."""
    return (each.range.largest or 1.0) / LARGEST


def heat_tile(each: EvidenceMap, level: int, x: int, y: int) -> bytes:
    """A square of a map, ``TILE_PX`` high and wide, in rows of little-endian int16.

    Args:
        each: the map.
        level: 0 the finest.
        x: columns of squares to its left.
        y: rows of squares above it.

    Raises:
        PathologyError: the file is damaged, or holds more than its record says.
        UnknownIdError: there is no such square.
    """
    if not 0 <= level < len(each.shapes):
        raise UnknownIdError(f"{each.name} has levels 0 to {len(each.shapes) - 1}, got {level}")
    down, across = (-(-side // TILE_PX) for side in each.shapes[level])
    if not (0 <= x < across and 0 <= y < down):
        raise UnknownIdError(
            f"level {level} of {each.name} has {across} x {down} tiles, got {x}, {y}"
        )
    values = each.shown(level, y * TILE_PX, x * TILE_PX, TILE_PX, TILE_PX)
    try:
        return whole_numbers(values, step_of(each)).tobytes()
    except ValueError as error:
        raise PathologyError(
            f"{each.stored.path}: {error}; its record is of another map: explain the slide again"
        ) from error


def whole_numbers(values: NDArray[np.float64], step: float) -> NDArray[np.int16]:
    """How many steps each value is, to the nearest.

    Args:
        values: any shape, none above ``step * 32767``; NaN and infinities are :data:`NOTHING`.
        step: positive.

    Returns:
        Little-endian, whatever the machine is.

    Raises:
        ValueError: a value is above the largest that there is a number for.
    """
    seen = np.isfinite(values)
    steps = np.rint(np.where(seen, values, 0.0) / step)
    # float32 sums of reduced levels may round up past it, by far less than half a step.
    if (highest := np.max(np.abs(steps), initial=0.0)) > LARGEST:
        raise ValueError(f"a value of {highest * step:.6g}, but at most {LARGEST * step:.6g}")
    return np.where(seen, steps, NOTHING).astype("<i2")
