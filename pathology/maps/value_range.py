"""The numbers that a viewer needs to show a signed map: zero in the middle, both sides alike."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_vit.render import symmetric_limit
from pathology.maps.pyramid import STRIP_ROWS, Level

SAMPLED = 1 << 20
"""About as many pixels decide where colours saturate."""


def value_range(level: Level) -> tuple[float, float]:
    """How far the values of a level reach from zero, read a strip at a time.

    Returns:
        Where colours should saturate, see :func:`bcos_vit.render.symmetric_limit`, of evenly spaced
        pixels, about a million; and the largest ``|value|``. Both are positive, or 0 where there is
        no value but zero.
    """
    strips = level.strips(STRIP_ROWS)
    return range_of(level.shape, ((top, 0, level.rows(top, end)) for top, end in strips))


def range_of(
    shape: tuple[int, int], blocks: Iterable[tuple[int, int, NDArray[Any]]]
) -> tuple[float, float]:
    """What :func:`value_range` says, of pixels that come a block at a time in any order.

    Args:
        shape: ``(height, width)`` of all.
        blocks: top, left and values of each.
    """
    height, width = shape
    step = max(1, int((height * width / SAMPLED) ** 0.5))
    largest, sample = 0.0, []
    for top, left, values in blocks:
        sizes = np.abs(values)
        largest = max(largest, float(np.max(sizes, where=np.isfinite(sizes), initial=0.0)))
        # A copy: a view would keep the block.
        sample.append(sizes[-top % step :: step, -left % step :: step].ravel().copy())
    if not largest:
        return 0.0, 0.0
    # Where the sample saw nothing but zeros, the limit is 1 whatever the values are.
    return min(symmetric_limit(np.concatenate(sample)), largest), largest
