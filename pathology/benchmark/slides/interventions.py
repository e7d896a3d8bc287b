"""Necessity and sufficiency of sets of tiles, and how little of a lesion is still seen.

Necessity is what a slide loses without the set; sufficiency what a slide without lesion gains with
it, which depends on that slide, so that it is averaged over many.

Source: Kaczmarzyk et al., HIPPO, 2024 (arXiv:2409.03080).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathology.aggregators.aggregator import Aggregator
from pathology.benchmark.slides.bag_logits import BagLogits, probability
from pathology.benchmark.slides.flipping import random_ranks

Sets = NDArray[np.bool_]
"""``(S, N)``: tiles of each set."""


def top_sets(scores: Tensor, size: int, rng: np.random.Generator) -> Sets:
    """The tiles with the highest scores, ties at random: ``(orders, N)``, several with ties.

    Args:
        scores: ``(N,)``.
        size: tiles of a set; all where there are fewer.
        rng: of the order of tiles that tie.

    Raises:
        ValueError: a size below 1, or scores with NaN.
    """
    if size < 1:
        raise ValueError(f"a set must have at least 1 tile, got {size}")
    return np.stack([ranks < size for ranks in random_ranks(scores, rng)])


def necessity(logits: BagLogits, sets: Sets, target: int) -> NDArray[np.float64]:
    """What the bag loses without each set: ``(2, S)`` in probability and in logit.

    Args:
        logits: of the bag's subsets.
        sets: tiles of the bag.
        target: the output.

    Raises:
        ValueError, TypeError: sets of another shape or type.
    """
    without = logits(torch.from_numpy(~sets))
    return _both(logits.whole()[None], target) - _both(without, target)


def sufficiency(
    aggregator: Aggregator, features: Tensor, sets: Sets, others: Sequence[Tensor], target: int
) -> NDArray[np.float64]:
    """What other bags gain with each set: ``(2, S)`` in probability and in logit, mean over bags.

    Args:
        aggregator: in eval mode.
        features: ``(N, D)`` of the bag that the sets are of.
        sets: tiles of that bag.
        others: features of bags without what is looked for.
        target: the output.

    Raises:
        ValueError: no other bag.
    """
    if not others:
        raise ValueError("sufficiency needs bags to add tiles to, got none")
    used = torch.from_numpy(sets.any(0))
    added = torch.from_numpy(sets)[:, used]
    gains = []
    for other in others:
        logits = BagLogits(aggregator, torch.cat([other, features[used]]))
        before = torch.zeros(1, len(logits), dtype=torch.bool)
        before[:, : len(other)] = True
        after = before.repeat(len(sets), 1)
        after[:, len(other) :] = added
        gains.append(_both(logits(after), target) - _both(logits(before), target))
    mean: NDArray[np.float64] = np.mean(gains, axis=0)
    return mean


@dataclass(frozen=True, slots=True, eq=False)
class LesionCurve:
    """A slide with ever less of its lesion, all else left.

    Args:
        tiles: ``(k,)`` lesion tiles that stay.
        probability: ``(k,)`` mean over random choices of them.
        logit: likewise.
        found: ``(k,)`` share of the choices of which the probability is at least one half.
    """

    tiles: NDArray[np.int64]
    probability: NDArray[np.float64]
    logit: NDArray[np.float64]
    found: NDArray[np.float64]


def lesion_curve(
    logits: BagLogits,
    lesion: NDArray[np.bool_],
    counts: Sequence[int],
    target: int,
    rng: np.random.Generator,
    *,
    choices: int = 10,
) -> LesionCurve:
    """What is made of a slide whose lesion is cut down to a few tiles.

    Args:
        logits: of the slide's subsets.
        lesion: ``(N,)`` which tiles are lesion.
        counts: lesion tiles to leave, at most as many as there are; others are left out.
        target: the output.
        rng: of the choice of tiles.
        choices: at random, of each count but none and all.

    Raises:
        ValueError: a slide without lesion.
    """
    places = np.flatnonzero(lesion)
    if not len(places):
        raise ValueError("the slide has no lesion tile to leave")
    chosen = sorted({count for count in counts if 0 <= count <= len(places)})
    kept, owner = [], []
    for i, count in enumerate(chosen):
        for _ in range(1 if count in (0, len(places)) else choices):
            row = ~lesion
            row[rng.choice(places, count, replace=False)] = True
            kept.append(row)
            owner.append(i)
    found = _both(logits(torch.from_numpy(np.array(kept))), target)
    at = np.array(owner)
    columns = [
        np.array([values[at == i].mean() for i in range(len(chosen))])
        for values in (found[0], found[1], (found[0] >= 0.5).astype(np.float64))
    ]
    return LesionCurve(np.array(chosen), *columns)


def _both(logits: Tensor, target: int) -> NDArray[np.float64]:
    """``(2, S)`` probability and logit."""
    found: NDArray[np.float64] = (
        torch.stack([probability(logits, target), logits[:, target]]).cpu().numpy()
    )
    return found
