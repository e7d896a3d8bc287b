"""Connected pieces of a mask: dropping small ones, filling holes, growing from seeds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are neighbours."""


def label_areas(pieces: NDArray[Any], count: int) -> NDArray[np.int64]:
    """``(count + 1,)`` pixels of each label; 0 is what has none."""
    areas = np.zeros(count + 1, np.int64)
    # In parts, because bincount makes eight bytes of every pixel.
    for top in range(0, len(pieces), 256):
        areas += np.bincount(pieces[top : top + 256].reshape(-1), minlength=count + 1)
    return areas


def at_edge(pieces: NDArray[Any], count: int, rim: int) -> NDArray[np.bool_]:
    """``(count + 1,)`` which labels come within ``rim`` pixels of the picture's edge."""
    touches = np.zeros(count + 1, bool)
    for rows in (pieces, pieces.T):
        touches[rows[: rim + 1]] = touches[rows[-rim - 1 :]] = True
    touches[0] = False
    return touches


def without_small(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Connected pieces of at least ``smallest`` pixels."""
    pieces, count = ndimage.label(mask)
    keep = label_areas(pieces, count) >= smallest
    keep[0] = False
    kept: NDArray[np.bool_] = keep[pieces]
    return kept


def grown(seeds: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pieces of ``mask`` that hold a seed; pixels at a corner are connected."""
    pieces, count = ndimage.label(mask, EIGHT)
    keep = np.zeros(count + 1, bool)
    keep[pieces[seeds]] = True
    keep[0] = False
    kept: NDArray[np.bool_] = keep[pieces]
    return kept


def closed(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Gaps narrower than twice ``radius`` pixels closed; as it is for 0."""
    # Imported here because it takes longer than all of the package's own modules.
    import skimage.morphology

    morphology: Any = skimage.morphology  # typed in part only
    places = ndimage.find_objects(mask.astype(np.uint8))
    if not radius or not places:
        return mask
    # Most masks are a small part of the picture.
    place = tuple(wider(part, 2 * radius) for part in places[0])
    result = mask.copy()
    result[place] = morphology.closing(mask[place], morphology.disk(radius))
    return result


def widened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Everything within ``radius`` pixels of the mask."""
    reach = int(radius)
    places = ndimage.find_objects(mask.astype(np.uint8))
    if not reach or not places:
        return mask
    # Most masks are a small part of the picture.
    place = tuple(wider(part, reach) for part in places[0])
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    result = mask.copy()
    result[place] = ndimage.binary_dilation(mask[place], y * y + x * x <= radius * radius)
    return result


def wider(part: slice, by: int) -> slice:
    """A slice that begins and ends so much further out."""
    return slice(max(0, part.start - by), part.stop + by)


def tidied(
    mask: NDArray[np.bool_], mpp: float, closing_um: float, max_hole_um2: float, min_area_um2: float
) -> NDArray[np.bool_]:
    """A mask with narrow gaps closed, small holes filled and small pieces dropped."""
    mask = closed(mask, round(closing_um / mpp))
    mask = ~without_small(~mask, max_hole_um2 / mpp**2)
    return without_small(mask, min_area_um2 / mpp**2)
