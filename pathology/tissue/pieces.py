"""Connected pieces of a mask: dropping small ones, filling holes, growing from seeds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are neighbours."""


def without_small(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Connected pieces of at least ``smallest`` pixels."""
    pieces, count = ndimage.label(mask)
    keep = np.bincount(pieces.reshape(-1), minlength=count + 1) >= smallest
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
    if not radius:
        return mask
    result: NDArray[np.bool_] = morphology.closing(mask, morphology.disk(radius))
    return result


def widened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Everything within ``radius`` pixels of the mask."""
    if radius <= 0 or not mask.any():
        return mask
    near: NDArray[np.bool_] = ndimage.distance_transform_edt(~mask) <= radius
    return near


def tidied(
    mask: NDArray[np.bool_], mpp: float, closing_um: float, max_hole_um2: float, min_area_um2: float
) -> NDArray[np.bool_]:
    """A mask with narrow gaps closed, small holes filled and small pieces dropped."""
    mask = closed(mask, round(closing_um / mpp))
    mask = ~without_small(~mask, max_hole_um2 / mpp**2)
    return without_small(mask, min_area_um2 / mpp**2)
