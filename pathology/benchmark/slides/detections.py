"""Lesions found by the scores of tiles: local maxima on the grid of tiles, for FROC.

CAMELYON16's rules say how detections are counted, not how they come from a map. Here: a tile is one
if none of its up to eight neighbours has a higher score; there are no ties, the caller sees to it.
Nothing is smoothed; the detection is at the tile's middle.
"""

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.slides.bags import SlideBag
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.metrics.froc import Hits, Lesions, count_hits, find_lesions


def lesions_of(bag: SlideBag) -> Lesions | None:
    """The lesions of a slide, by the challenge's rules; None of a slide without."""
    if not bag.lesion_raster.any():
        return None
    height, width = bag.lesion_raster.shape
    step = bag.raster_um / bag.mpp
    box = Box(0, 0, width * step, height * step)
    mask = SlideMap(bag.lesion_raster.astype(np.float32), box, Mpp(bag.mpp, bag.mpp), "fraction")
    return find_lesions(mask)


def detect(bag: SlideBag, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Tiles of a slide that are detections.

    Args:
        bag: the slide.
        scores: ``(N,)`` of its tiles, all different.
    """
    column, row = (bag.corners // bag.tile_px).T
    grid = np.full((row.max() + 3, column.max() + 3), -np.inf)
    grid[row + 1, column + 1] = scores
    is_highest = np.ones(len(scores), bool)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            is_highest &= scores >= grid[row + 1 + down, column + 1 + right]
    return np.flatnonzero(is_highest)


def hits_of(bag: SlideBag, lesions: Lesions | None, scores: NDArray[np.float64]) -> Hits:
    """What a slide's detections come to.

    Args:
        bag: the slide.
        lesions: of :func:`lesions_of`.
        scores: ``(N,)`` of its tiles, positive, on one scale with those of other slides.
    """
    found = detect(bag, scores)
    x, y = (bag.corners[found] + bag.tile_px / 2).T
    return count_hits(lesions, x, y, scores[found])
