"""Where the positive values of a map lie: energy pointing, and how much denser that is than chance.

Energy pointing has several names: the energy-based pointing game (Wang et al., Score-CAM, CVPR
Workshops 2020, arXiv:1910.01279), the positive attribution ratio, and relevance mass accuracy of
positive values (Arras et al., Information Fusion 81, 2022, arXiv:2003.07258). They are one measure.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.map_quality.compared import checked, compared, share


def energy_pointing(maps: ArrayLike, masks: ArrayLike) -> NDArray[np.float64]:
    """Share of a map's positive values that lies in the mask: ``sum_M A+ / sum A+``.

    Chance is the mask's share of the image, so large masks are easy: see :func:`concentration`.

    Args:
        maps: ``(n, h, w)``, not scaled.
        masks: ``(n, h, w)`` bool.

    Returns:
        ``(n,)`` in [0, 1]; NaN where the mask is empty or no value is positive.

    Raises:
        ValueError, TypeError: as :func:`pathology.map_quality.compared.compared`.
    """
    found, truth = compared(maps, masks)
    positive = found.clip(0)
    energy = share((positive * truth).sum((1, 2)), positive.sum((1, 2)))
    energy[~truth.any((1, 2))] = np.nan
    return energy


def concentration(maps: ArrayLike, masks: ArrayLike) -> NDArray[np.float64]:
    """How many times denser positive values are in the mask than overall: 1 is chance.

    Energy pointing over the mask's share of the image; at most the image's area over the mask's.

    Args:
        maps: ``(n, h, w)``, not scaled.
        masks: ``(n, h, w)`` bool.

    Returns:
        ``(n,)``; NaN as :func:`energy_pointing`.

    Raises:
        ValueError, TypeError: as :func:`energy_pointing`.
    """
    _, truth = compared(maps, masks)
    return share(energy_pointing(maps, masks), truth.mean((1, 2)))


def positive_mass(maps: ArrayLike) -> NDArray[np.float64]:
    """Sum of a map's positive values, ``(n,)``, in the map's unit.

    Of images without what is explained it should be small.

    Args:
        maps: ``(n, h, w)``, not scaled.

    Raises:
        ValueError: as :func:`pathology.map_quality.compared.checked`.
    """
    mass: NDArray[np.float64] = checked(maps).clip(0).sum((1, 2))
    return mass
