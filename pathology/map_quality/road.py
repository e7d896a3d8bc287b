"""ROAD: remove and debias, deletion that hides the shape of what was removed.

Removed pixels are solved for from their neighbours, with a little noise on top: a network cannot
read the mask off the filling.

Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML
2022 (arXiv:2202.00449).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.deletion import Curves, deletion
from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Inpainting, Mask
from pathology.map_quality.scoring import Image

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares removed."""


def road(
    question: Question,
    attribution: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    levels: Sequence[float] = LEVELS,
    noise: float = 0.01,
    orders: int = 1,
) -> Curves:
    """ROAD of one map; ``.mean_difference()`` is LeRF - MoRF, mean over levels, 0 at chance.

    Args:
        question: the image, the class explained and the network.
        attribution: ``(h, w)`` the map; only its order counts.
        rng: of the noise, and of the order of ties.
        levels: shares removed.
        noise: deviation of what is added to removed pixels, of light in [0, 1].
        orders: random orders of ties to average over.

    Raises:
        ValueError: as :func:`~pathology.map_quality.deletion.deletion`.
    """
    inpaint, noises = Inpainting(), rng.spawn(1)[0]

    def fill(picture: Image, removed: Mask) -> Image:
        filled = inpaint(picture, removed)
        grain = noise * noises.standard_normal((int(removed.sum()), 3))
        filled[removed] = np.clip(filled[removed] + grain, 0, 1)
        return filled

    return deletion(question, attribution, rng, fill=fill, steps=levels, orders=orders)
