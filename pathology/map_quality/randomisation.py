"""Sanity checks: a map must change when what the network has learnt is thrown away.

Maps that multiply by the pixels keep their look under random weights, so a similarity is only high
or low beside that of a control (the edges of the image, random weights times pixels).

Sources: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018 (arXiv:1810.03292);
Hedström et al., "Sanity Checks Revisited", XAI in Action workshop 2023 (arXiv:2401.06465).
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

from pathology.map_quality.agreement import similarity

BINS = 100


def parameter_similarity(
    maps: NDArray[np.floating], randomised: NDArray[np.floating], keep_sign: bool = True
) -> NDArray[np.float64]:
    """How much of a map's order is left once weights are random; low is good.

    Args:
        maps: ``(n, h, w)`` of the trained network.
        randomised: ``(n, h, w)`` of the same images and classes, by one of random weights.
        keep_sign: rank correlation of the signed maps; otherwise of their absolute values.

    Returns:
        ``(n,)``; NaN where a map is constant.
    """
    if keep_sign:
        return similarity(maps, randomised)
    return similarity(np.abs(maps), np.abs(randomised))


def map_entropy(maps: NDArray[np.floating], bins: int = BINS) -> NDArray[np.float64]:
    """Entropy in nats of the histogram of each map's values, between its own least and highest.

    Args:
        maps: ``(n, h, w)``.
        bins: of equal width.

    Returns:
        ``(n,)``; 0 for a constant map.
    """
    if maps.ndim != 3 or not np.isfinite(maps).all():
        raise ValueError(f"maps must be (n, h, w) and finite, got {maps.shape}")
    # float64 first: bins of a float32 map of tiny range would fall on each other.
    return np.array(
        [
            float(entropy(np.histogram(one, bins)[0])) if np.ptp(one) > 0 else 0.0
            for one in maps.astype(np.float64)
        ]
    )


def entropy_rise(
    maps: NDArray[np.floating], randomised: NDArray[np.floating], bins: int = BINS
) -> NDArray[np.float64]:
    """EMPRT: how much more complex maps become under random weights, ``(after - before) / before``.

    Args:
        maps: ``(n, h, w)`` of the trained network.
        randomised: ``(n, h, w)`` of the same images and classes, by one of random weights.
        bins: of the histogram.

    Returns:
        ``(n,)``, high is good; NaN where the first map is constant.
    """
    if maps.shape != randomised.shape:
        raise ValueError(f"maps must be (n, h, w) twice, got {maps.shape} and {randomised.shape}")
    before, after = map_entropy(maps, bins), map_entropy(randomised, bins)
    return np.divide(after - before, before, out=np.full(len(before), math.nan), where=before > 0)
