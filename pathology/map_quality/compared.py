"""Maps beside masks, checked; and why a map has no value of a measure."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Maps = NDArray[np.float64]
Masks = NDArray[np.bool_]


def compared(maps: ArrayLike, masks: ArrayLike) -> tuple[Maps, Masks]:
    """Maps in float64 and masks of the same shape.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.

    Raises:
        ValueError: other shapes, or a map that holds NaN or infinity.
        TypeError: masks that are not bool.
    """
    found, truth = checked(maps), np.asarray(masks)
    if truth.dtype != np.bool_:
        raise TypeError(f"masks must be bool, got {truth.dtype}")
    if truth.shape != found.shape:
        raise ValueError(f"masks must be {found.shape} as maps are, got {truth.shape}")
    return found, truth


def checked(maps: ArrayLike) -> Maps:
    """Maps ``(n, h, w)`` in float64.

    Raises:
        ValueError: another number of dimensions, no pixels, or NaN or infinity.
    """
    found = np.asarray(maps, np.float64)
    if found.ndim != 3 or 0 in found.shape[1:]:
        raise ValueError(f"maps must be (images, height, width), got {found.shape}")
    bad = ~np.isfinite(found).all((1, 2))
    if bad.any():
        raise ValueError(
            f"maps must hold numbers; map {int(bad.argmax())} of {len(found)} holds NaN or infinity"
        )
    return found


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """``part / whole``, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def why_undefined(maps: ArrayLike, masks: ArrayLike) -> list[str]:
    """What about each map or mask keeps measures from having a value; empty where nothing does.

    A measure that is NaN for an image is so for the reason given here: measures of energy need a
    pixel in the mask and a positive one in the map; those of ranking a pixel inside and one
    outside; those of overlap a pixel in the mask, and the robustness of thresholds a map that
    varies.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.

    Raises:
        ValueError, TypeError: as :func:`compared`.
    """
    found, truth = compared(maps, masks)
    reasons = []
    for one, inside in zip(found, truth, strict=True):
        parts = []
        if not inside.any():
            parts.append("the mask is empty")
        if inside.all():
            parts.append("the mask is the whole image")
        if not (one > 0).any():
            parts.append("the map has no positive value")
        if one.min() == one.max():
            parts.append("the map is constant")
        reasons.append("; ".join(parts))
    return reasons
