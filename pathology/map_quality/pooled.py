"""Average precision of the pixels of all images together.

Pooled pixels are compared across images, so maps need one scale. Logits have one;
:class:`PooledPrecision` takes them as they are. The protocol of weakly supervised localisation
scales each map to [0, 1] by its own lowest and highest value instead, which makes the highest pixel
of a normal image as sure as that of a tumour: :func:`scaled` and PxAP, for comparison with numbers
published under it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.map_quality.compared import Maps, Masks, checked, compared

PXAP_THRESHOLDS = np.append(np.arange(0, 1, 0.001), 1.0)
"""Of the protocol: every thousandth."""


def scaled(maps: ArrayLike) -> Maps:
    """Each map ``(n, h, w)`` by its own lowest and highest value to [0, 1]; constant ones to 0.

    Raises:
        ValueError: as :func:`pathology.map_quality.compared.checked`.
    """
    found = checked(maps)
    low = found.min((1, 2), keepdims=True)
    extent = found.max((1, 2), keepdims=True) - low
    return np.divide(found - low, extent, out=np.zeros_like(found), where=extent > 0)


class PooledPrecision:
    """Average precision over the pixels of all images, for any weights of the images.

    Pixels are counted once, image by image, between thresholds; a weighting is then a product of
    two matrices, so that a bootstrap by patient costs little.

    Args:
        maps: ``(n, h, w)`` on one scale.
        masks: ``(n, h, w)`` bool, empty ones included.
        thresholds: ascending; pixels between two of them are not told apart. When omitted, the
            values of the maps, or so many quantiles of them as ``most``.
        most: thresholds, where they are not given.

    Raises:
        ValueError: maps and masks that do not fit, no images, thresholds that do not ascend.
        TypeError: masks that are not bool.
    """

    def __init__(
        self,
        maps: ArrayLike,
        masks: ArrayLike,
        thresholds: ArrayLike | None = None,
        *,
        most: int = 4096,
    ) -> None:
        found, truth = compared(maps, masks)
        if not len(found):
            raise ValueError("there must be images, got none")
        grid = _values(found, most) if thresholds is None else np.asarray(thresholds, np.float64)
        if grid.ndim != 1 or not len(grid) or not (np.diff(grid) > 0).all():
            raise ValueError("thresholds must be an ascending list of numbers")
        self.thresholds = grid
        self.inside, self.outside = _counts(found, truth, grid), _counts(found, ~truth, grid)

    @property
    def prevalence(self) -> float:
        """Share of all pixels that are in a mask: what a map that says nothing reaches."""
        inside = self.inside.sum()
        return float(inside / (inside + self.outside.sum()))

    def __call__(self, weights: ArrayLike | None = None) -> NDArray[np.float64]:
        """``(draws,)`` of weights ``(draws, n)``, each image once when omitted.

        NaN where a draw has no pixel inside of a mask, or none outside.

        Raises:
            ValueError: weights of another shape, or negative ones.
        """
        images = len(self.inside)
        times = np.ones((1, images)) if weights is None else np.asarray(weights, np.float64)
        if times.ndim != 2 or times.shape[1] != images or (times < 0).any():
            raise ValueError(f"weights must be (draws, {images}) and at least 0, got {times.shape}")
        # From the highest threshold down: what is at least as high.
        gained = (times @ self.inside)[:, ::-1]
        hits = gained.cumsum(1)
        taken = hits + (times @ self.outside)[:, ::-1].cumsum(1)
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        total = hits[:, -1]
        defined = (total > 0) & (taken[:, -1] > total)
        sums = (gained * precision).sum(1)
        return np.divide(sums, total, out=np.full(len(times), np.nan), where=defined)


def pooled_average_precision(maps: ArrayLike, masks: ArrayLike) -> float:
    """Average precision over the pixels of all images, of maps as they are.

    Args:
        maps: ``(n, h, w)`` on one scale.
        masks: ``(n, h, w)`` bool, empty ones included.

    Returns:
        In [0, 1], by chance the share of pixels in masks; NaN where there are none, or no others.

    Raises:
        ValueError, TypeError: as :class:`PooledPrecision`.
    """
    found, truth = compared(maps, masks)
    if not len(found):
        raise ValueError("there must be images, got none")
    # As one image: each of its pixels is told apart.
    everything = PooledPrecision(found.reshape(1, 1, -1), truth.reshape(1, 1, -1), most=found.size)
    return float(everything()[0])


def pixel_average_precision(maps: ArrayLike, masks: ArrayLike) -> PooledPrecision:
    """PxAP: maps scaled each to [0, 1], then pooled at every thousandth; of the images' weights.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.

    Raises:
        ValueError, TypeError: as :class:`PooledPrecision`.

    Source:
        Choe et al., CVPR 2020 (arXiv:2001.07437), section 3.3.2, and its published evaluation,
        which gives percent.
    """
    return PooledPrecision(scaled(maps), masks, PXAP_THRESHOLDS)


def _values(maps: Maps, most: int) -> NDArray[np.float64]:
    """The values of maps, or quantiles of them."""
    if most < 2:
        raise ValueError(f"most must be at least 2 thresholds, got {most}")
    values = np.unique(maps)
    if len(values) <= most:
        return values
    grid: NDArray[np.float64] = np.unique(
        np.quantile(maps, np.linspace(0, 1, most), method="lower")
    )
    return grid


def _counts(maps: Maps, chosen: Masks, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, thresholds)``: chosen pixels from each threshold up to the next, none below the first.

    Pixels below all thresholds count with the lowest, so that every pixel counts.
    """
    counts = np.empty((len(maps), len(thresholds)))
    for row, one, which in zip(counts, maps, chosen, strict=True):
        at = np.searchsorted(thresholds, one[which], side="right") - 1
        row[:] = np.bincount(at.clip(0), minlength=len(thresholds))
    return counts
