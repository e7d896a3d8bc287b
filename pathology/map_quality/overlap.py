"""A map made a mask by a threshold, against the true one; where thresholds come from is in a name.

A threshold that was chosen on the maps it is then measured on is an ``oracle``: such a Dice says
what could be reached, not what is. Honest ones are chosen on maps of other patients
(:func:`choose_threshold` on those of validation).

A pixel is in the map's mask if its value is at least the threshold.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.map_quality.compared import Maps, compared

Curve = Callable[[NDArray[np.float64], NDArray[np.float64], float, int], NDArray[np.float64]]
"""From pixels in the map's mask, those of them in the true one, the true mask's size and the
image's, to the measure."""

ENOUGH = 0.9
"""Of the highest Dice, at which a threshold still counts as a good one."""


def dice(maps: ArrayLike, masks: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Twice the overlap over the sum of both areas.

    All pixels together have ``2m / (1 + m)`` for a mask of share m: a high floor of large masks.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.
        threshold: in the maps' unit.

    Returns:
        ``(n,)`` in [0, 1]; NaN where the mask is empty.

    Raises:
        ValueError, TypeError: as :func:`pathology.map_quality.compared.compared`.
    """
    return _curves(maps, masks, [threshold], _dice)[:, 0]


def iou(maps: ArrayLike, masks: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Overlap over union: ``(n,)``, arguments and NaN as :func:`dice`."""
    return _curves(maps, masks, [threshold], _iou)[:, 0]


def balanced_miou(maps: ArrayLike, masks: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Mean of the overlap over union of the mask and of what is not in it.

    ``(n,)``, arguments as :func:`dice`; NaN where the mask is empty or the whole image.
    """
    return _curves(maps, masks, [threshold], _balanced_miou)[:, 0]


def choose_threshold(
    maps: ArrayLike, masks: ArrayLike, thresholds: ArrayLike | None = None
) -> float:
    """The threshold with the highest mean Dice, on maps of validation.

    Args:
        maps: ``(n, h, w)`` of validation.
        masks: ``(n, h, w)`` bool.
        thresholds: to choose from; when omitted 101 quantiles of all pixels, evenly spaced.

    Returns:
        The lowest of the best.

    Raises:
        ValueError: as :func:`dice`; no mask with a pixel, no thresholds.
        TypeError: as :func:`dice`.
    """
    found, truth = compared(maps, masks)
    if not truth.any():
        raise ValueError("no mask has a pixel: there is no Dice to choose a threshold by")
    grid = np.quantile(found, np.linspace(0, 1, 101)) if thresholds is None else thresholds
    grid = np.unique(np.asarray(grid, np.float64))
    if not len(grid):
        raise ValueError("there must be thresholds to choose from, got none")
    has_mask = truth.any((1, 2))
    means = _curves(found[has_mask], truth[has_mask], grid, _dice).mean(0)
    return float(grid[means.argmax()])


def oracle_dice(maps: ArrayLike, masks: ArrayLike) -> NDArray[np.float64]:
    """Each map's highest Dice at any threshold, chosen by its own mask: an upper bound.

    ``(n,)``, arguments and NaN as :func:`dice`.
    """
    found, truth = compared(maps, masks)
    return np.array(
        [
            _curves(one[None], inside[None], np.unique(one), _dice).max()
            if inside.any()
            else np.nan
            for one, inside in zip(found, truth, strict=True)
        ]
    )


def threshold_robustness(
    maps: ArrayLike, masks: ArrayLike, thresholds: int = 100
) -> NDArray[np.float64]:
    """Share of thresholds at which Dice is at least 0.9 times the highest.

    Thresholds are evenly spaced from a map's lowest value to its highest, each map its own, so that
    no scale matters. To be read beside Dice: a map that says nothing is robustly bad.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.
        thresholds: how many, both ends included.

    Returns:
        ``(n,)`` in (0, 1]; NaN where the mask is empty or the map constant.

    Raises:
        ValueError: as :func:`dice`; fewer than 2 thresholds.
        TypeError: as :func:`dice`.
    """
    if thresholds < 2:
        raise ValueError(f"thresholds must be at least 2, got {thresholds}")
    found, truth = compared(maps, masks)
    shares = np.full(len(found), np.nan)
    for i, (one, inside) in enumerate(zip(found, truth, strict=True)):
        if inside.any() and one.min() < one.max():
            grid = np.linspace(one.min(), one.max(), thresholds)
            curve = _curves(one[None], inside[None], grid, _dice)[0]
            shares[i] = (curve >= ENOUGH * curve.max()).mean()
    return shares


def _curves(
    maps: ArrayLike, masks: ArrayLike, thresholds: ArrayLike, measure: Curve
) -> NDArray[np.float64]:
    """A measure of each map at each threshold: ``(n, thresholds)``; each map is sorted once."""
    found, truth = compared(maps, masks)
    grid = np.asarray(thresholds, np.float64)
    if not np.isfinite(grid).all():
        raise ValueError("thresholds must be numbers, got NaN or infinity")
    curves = np.empty((len(found), len(grid)))
    for row, one, inside in zip(curves, found, truth, strict=True):
        taken, hits = _at_least(one.ravel(), grid), _at_least(one[inside], grid)
        row[:] = measure(taken, hits, float(inside.sum()), inside.size)
    return curves


def _at_least(values: Maps, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many values are at least each threshold."""
    below = np.searchsorted(np.sort(values), thresholds, side="left")
    return (len(values) - below).astype(np.float64)


def _dice(
    taken: NDArray[np.float64], hits: NDArray[np.float64], mask: float, image: int
) -> NDArray[np.float64]:
    return 2 * hits / (taken + mask) if mask else np.full(len(taken), np.nan)


def _iou(
    taken: NDArray[np.float64], hits: NDArray[np.float64], mask: float, image: int
) -> NDArray[np.float64]:
    return hits / (taken + mask - hits) if mask else np.full(len(taken), np.nan)


def _balanced_miou(
    taken: NDArray[np.float64], hits: NDArray[np.float64], mask: float, image: int
) -> NDArray[np.float64]:
    if not mask or mask == image:
        return np.full(len(taken), np.nan)
    # What neither mask has, over what not both have.
    neither = image - taken - mask + hits
    return (_iou(taken, hits, mask, image) + neither / (image - hits)) / 2
