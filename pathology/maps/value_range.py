"""The numbers that a viewer needs to show a signed map: zero in the middle, both sides alike."""

import numpy as np

from bcos_vit.render import symmetric_limit
from pathology.maps.pyramid import STRIP_ROWS, Level

SAMPLED = 1 << 20
"""About as many pixels decide where colours saturate."""


def value_range(level: Level) -> tuple[float, float]:
    """How far the values of a level reach from zero, read a strip at a time.

    Returns:
        Where colours should saturate, see :func:`bcos_vit.render.symmetric_limit`, of evenly spaced
        pixels, about a million; and the largest ``|value|``. Both are positive, and 1 where there
        is no value but zero.
    """
    height, width = level.shape
    step = max(1, int((height * width / SAMPLED) ** 0.5))
    largest, sample = 0.0, []
    for top, bottom in level.strips(step * max(1, STRIP_ROWS // step)):
        sizes = np.abs(level.rows(top, bottom))
        largest = max(largest, float(np.max(sizes, where=np.isfinite(sizes), initial=0.0)))
        sample.append(sizes[::step, ::step].copy())  # a view would keep the strip
    if not largest:
        return 1.0, 1.0
    # Where the sample saw nothing but zeros, the limit is 1 whatever the values are.
    return min(symmetric_limit(np.concatenate(sample)), largest), largest
