"""SaCo: salience-guided faithfulness, do groups of pixels that a map puts first matter more?

Pixels are sorted by the map and cut into groups of equal size. Of each two groups the one with the
higher salience should have the higher influence; each pair counts by how different the map says
they are, for or against it.

Source: Wu et al., "On the Faithfulness of Vision Transformer Explanations", CVPR 2024
(arXiv:2404.01415).
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.deletion import ranks
from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Fill, Inpainting
from pathology.map_quality.scoring import Quantity, check_map


@dataclass(frozen=True, slots=True, eq=False)
class Saco:
    """Groups of pixels, most salient first.

    Args:
        value: in [-1, 1], 1 where all pairs of groups are in order; NaN with a note.
        salience: ``(groups,)`` sums of the map.
        influence: ``(groups,)`` fall of the probability (or logit) without the group.
        note: why there is no value.
    """

    value: float
    salience: NDArray[np.float64]
    influence: NDArray[np.float64]
    note: str = ""


def saco(
    question: Question,
    attribution: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    groups: int = 10,
    fill: Fill | None = None,
    quantity: Quantity = "probability",
) -> Saco:
    """SaCo of one map.

    Args:
        question: the image, the class explained and the network.
        attribution: ``(h, w)`` the map.
        rng: of the order of ties.
        groups: of pixels, equal in size to a pixel.
        fill: what removed pixels become; inpainting when omitted.
        quantity: whose fall is a group's influence.

    Raises:
        ValueError: image and map that do not go together, fewer than two groups.
    """
    image = question.image
    check_map(image, attribution)
    if not 2 <= groups <= attribution.size:
        raise ValueError(f"groups must be from 2 to {attribution.size}, got {groups}")
    fill = Inpainting() if fill is None else fill
    values = attribution.astype(np.float64).ravel()
    member = (ranks(values, rng) * groups // len(values)).reshape(attribution.shape)
    salience = np.asarray(np.bincount(member.ravel(), values), np.float64)
    without = (fill(image, member == group) for group in range(groups))
    influence = question.falls(without, quantity)
    if np.ptp(attribution) == 0:
        return Saco(math.nan, salience, influence, "the map is constant")
    if np.ptp(influence) == 0:
        return Saco(math.nan, salience, influence, "removing any group does the same")
    agreed = total = 0.0
    for more, less in combinations(range(groups), 2):
        weight = float(salience[more] - salience[less])
        agreed += weight * np.sign(influence[more] - influence[less])
        total += abs(weight)
    return Saco(float(agreed / total), salience, influence)
