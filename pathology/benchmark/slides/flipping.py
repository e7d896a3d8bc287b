"""Tile flipping: what becomes of a class as tiles are taken away in the order of their scores.

Taking the most relevant first should bring it down at once, the least relevant first should leave
it as it is; the area between the two curves is the better the larger. Tiles leave the bag, so
nothing has to be filled in, and a network's fear of masks plays no part.

Source: xMIL, NeurIPS 2024 (arXiv:2406.04280), section 4.3 (most relevant first, a
hundredth a step); ABPC: Bluecher et al., TMLR 2024 (arXiv:2401.06654).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathology.benchmark.slides.bag_logits import BagLogits, probability

STEPS = 100
ORDERS = 5
"""Random orders of ties that are averaged over."""


@dataclass(frozen=True, slots=True, eq=False)
class Flipping:
    """Curves over the share of tiles that is gone, 0 to 1 in :data:`STEPS` steps.

    Args:
        most: ``(2, steps + 1)`` probability and logit, the most relevant taken first.
        least: likewise, the least relevant first.
    """

    most: NDArray[np.float64]
    least: NDArray[np.float64]

    @property
    def aupc(self) -> NDArray[np.float64]:
        """``(2,)`` mean of the curve of most relevant first, lower is better."""
        area: NDArray[np.float64] = self.most.mean(1)
        return area

    @property
    def abpc(self) -> NDArray[np.float64]:
        """``(2,)`` mean of least relevant first less that of most relevant first."""
        area: NDArray[np.float64] = (self.least - self.most).mean(1)
        return area


def flip_tiles(
    logits: BagLogits,
    scores: Tensor,
    target: int,
    rng: np.random.Generator,
    *,
    steps: int = STEPS,
) -> Flipping:
    """The curves of a bag.

    Args:
        logits: of the bag's subsets.
        scores: ``(N,)``.
        target: the output.
        rng: of the order of tiles that tie, over :data:`ORDERS` of which curves are averaged.
        steps: in which all tiles go, as evenly as their number allows.

    Raises:
        ValueError: scores of another number, or with NaN; no steps.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    gone = np.round(np.linspace(0, len(scores), steps + 1)).astype(np.int64)
    curves = []
    for ranks in random_ranks(scores, rng):
        most = _curve(logits, ranks[None] >= gone[:, None], target)
        least = _curve(logits, ranks[None] < len(ranks) - gone[:, None], target)
        curves.append((most, least))
    return Flipping(*np.mean(curves, axis=0))


def random_ranks(scores: Tensor, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rank ``(N,)`` of each tile, 0 the highest, ties at random: one order, or several with ties.

    Raises:
        ValueError: scores that are no list of numbers.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or np.isnan(values).any():
        raise ValueError(f"scores must be (tiles,) without NaN, got shape {values.shape}")
    repeats = ORDERS if len(np.unique(values)) < len(values) else 1
    found = []
    for _ in range(repeats):
        order = np.lexsort((rng.random(len(values)), -values))
        ranks = np.empty(len(values), np.int64)
        ranks[order] = np.arange(len(values))
        found.append(ranks)
    return found


def _curve(logits: BagLogits, kept: NDArray[np.bool_], target: int) -> NDArray[np.float64]:
    found = logits(torch.from_numpy(kept))
    return torch.stack([probability(found, target), found[:, target]]).cpu().numpy()
