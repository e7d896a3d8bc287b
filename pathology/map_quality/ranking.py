"""Whether a map ranks the pixels of a mask above the others; no scale of the map matters.

Pixels that tie count by what is expected over all orders of them, never by where they are: a map
without any difference is chance in every measure here.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt
from scipy.stats import rankdata

from pathology.map_quality.compared import Maps, Masks, compared


def average_precision(maps: ArrayLike, masks: ArrayLike) -> NDArray[np.float64]:
    """Mean over pixels of the mask of the precision among pixels valued at least as high.

    Chance is the mask's share of the image.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.

    Returns:
        ``(n,)`` in [0, 1]; NaN where the mask is empty or the whole image.

    Raises:
        ValueError, TypeError: as :func:`pathology.map_quality.compared.compared`.
    """
    return np.array([_precision(*pair) for pair in _pairs(maps, masks)])


def auroc(maps: ArrayLike, masks: ArrayLike) -> NDArray[np.float64]:
    """Share of pairs of a pixel inside and one outside in which that inside is higher, ties half.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.

    Returns:
        ``(n,)`` in [0, 1], 0.5 by chance; NaN where the mask is empty or the whole image.

    Raises:
        ValueError, TypeError: as :func:`average_precision`.
    """

    def area(values: Maps, inside: Masks) -> float:
        hits, rest = inside.sum(), (~inside).sum()
        if not hits or not rest:
            return np.nan
        ranks = rankdata(values)[inside].sum()
        return float((ranks - hits * (hits + 1) / 2) / (hits * rest))

    return np.array([area(*pair) for pair in _pairs(maps, masks)])


def relevance_rank_accuracy(maps: ArrayLike, masks: ArrayLike) -> NDArray[np.float64]:
    """Share of the K highest pixels that lie in the mask, K its number of pixels.

    Chance is the mask's share of the image.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.

    Returns:
        ``(n,)`` in [0, 1]; NaN where the mask is empty or the whole image.

    Raises:
        ValueError, TypeError: as :func:`average_precision`.

    Source:
        Arras, Osman and Samek, Information Fusion 81, 2022 (arXiv:2003.07258), section 3.3; with
        ties by expectation, which the paper leaves open.
    """

    def accuracy(values: Maps, inside: Masks) -> float:
        wanted = int(inside.sum())
        if not wanted or wanted == len(values):
            return np.nan
        last = np.partition(values, len(values) - wanted)[len(values) - wanted]
        above, ties = values > last, values == last
        open_places = wanted - above.sum()
        hits = (above & inside).sum() + open_places * (ties & inside).sum() / ties.sum()
        return float(hits / wanted)

    return np.array([accuracy(*pair) for pair in _pairs(maps, masks)])


def pointing_game(
    maps: ArrayLike, masks: ArrayLike, *, tolerance: float = 0.0
) -> NDArray[np.float64]:
    """Whether the highest pixel lies in the mask; the share that does of several that tie.

    It saturates, and looks at one pixel of thousands: no measure to rank methods by.

    Args:
        maps: ``(n, h, w)``.
        masks: ``(n, h, w)`` bool.
        tolerance: pixels from the mask that still count as in it.

    Returns:
        ``(n,)`` in [0, 1]; NaN where the mask is empty or the whole image.

    Raises:
        ValueError: as :func:`average_precision`; a negative tolerance.
        TypeError: as :func:`average_precision`.

    Source:
        Zhang et al., IJCV 126, 2018 (arXiv:1608.00507), section 4.2.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}")

    def share(values: Maps, inside: Masks) -> float:
        if not inside.any() or inside.all():
            return np.nan
        near = distance_transform_edt(~inside) <= tolerance
        return float(near[values == values.max()].mean())

    found, truth = compared(maps, masks)
    return np.array([share(*pair) for pair in zip(found, truth, strict=True)])


def _pairs(maps: ArrayLike, masks: ArrayLike) -> list[tuple[Maps, Masks]]:
    """Pixels and whether they are in the mask, of each image."""
    found, truth = compared(maps, masks)
    return [(one.ravel(), inside.ravel()) for one, inside in zip(found, truth, strict=True)]


def _precision(values: Maps, inside: Masks) -> float:
    """Average precision of one image."""
    if not inside.any() or inside.all():
        return np.nan
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(inside[order])[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])
