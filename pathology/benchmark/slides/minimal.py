"""Small sets of tiles that are enough for a call, or that it cannot do without.

A greedy search takes one tile a round, the best of all that are left; then every tile that turns
out not to be needed is given back, so that no tile of the result can be left out. That makes the
set minimal, not the smallest there is. Where any subset's logit has a closed form, as with
attention pooling, a round over all tiles is arithmetic on sums instead of a forward pass per tile,
and exact.

Source: Kaczmarzyk et al., HIPPO, 2024 (arXiv:2409.03080), greedy search; the closed form is ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pathology.aggregators.removal import greedy_addition, greedy_removal
from pathology.aggregators.subsets import Subsets
from pathology.benchmark.slides.bag_logits import BagLogits


@dataclass(frozen=True, slots=True, eq=False)
class MinimalSet:
    """Tiles that decide.

    Args:
        tiles: ``(k,)`` indices, in the order in which they were taken.
        logit: of these tiles alone, or of the bag without them.
        rounds: of the search, those of giving back included.
        forward_passes: that the search needs where each subset is one; with a closed form, those
            that it saves.
        closed_form: whether it had one.
    """

    tiles: Tensor
    logit: float
    rounds: int
    forward_passes: int
    closed_form: bool


def minimal_sufficient_set(
    logits: BagLogits, target: int, threshold: float = 0.0
) -> MinimalSet | None:
    """Tiles that have the logit reach a threshold all by themselves; at least one tile.

    Args:
        logits: of the bag's subsets.
        target: the output.
        threshold: of the logit; 0 is a probability of one half, of a single output.

    Returns:
        None where even the bag, or every set that the search came by, stays below.
    """
    # Without any tile there is no slide, whatever its logit.
    search = greedy_addition(logits.aggregator, logits.features, target, until=threshold, least=1)
    if not len(search.tiles) or float(search.logits[-1]) < threshold:
        return None
    kept = torch.zeros(len(logits), dtype=torch.bool, device=logits.features.device)
    kept[search.tiles] = True
    return _given_back(logits, target, search.tiles, kept, +1, threshold)


def minimal_necessary_set(
    logits: BagLogits, target: int, threshold: float = 0.0
) -> MinimalSet | None:
    """Tiles without which the logit falls to a threshold.

    Args:
        logits: of the bag's subsets.
        target: the output.
        threshold: of the logit; 0 is a probability of one half, of a single output.

    Returns:
        None where even the empty bag, and every set that the search came by, stays above.
    """
    search = greedy_removal(logits.aggregator, logits.features, target, until=threshold)
    if float(search.logits[-1]) > threshold:
        return None
    kept = torch.ones(len(logits), dtype=torch.bool, device=logits.features.device)
    kept[search.tiles] = False
    return _given_back(logits, target, search.tiles, kept, -1, threshold)


def _given_back(
    logits: BagLogits, target: int, tiles: Tensor, kept: Tensor, sign: int, threshold: float
) -> MinimalSet:
    """The set less what is not needed: of a kept set (+1) tiles leave, of a removed one return.

    Args:
        logits: of the bag's subsets.
        target: the output.
        tiles: of the set, in order.
        kept: ``(N,)`` tiles in the bag; changed.
        sign: +1 where the logit is to stay at least at the threshold, -1 where at most.
        threshold: of the logit.
    """
    subsets: Subsets = logits.of(target)
    total, taken = len(kept), len(tiles)
    passes = sum(total - i for i in range(taken))  # each round looks at every tile that is left
    rounds, left = taken, list(map(int, tiles))
    logit = float(subsets.logits(kept[None]))
    while len(left) > (sign > 0):
        rounds, passes = rounds + 1, passes + len(left)
        changed = subsets.without_each(kept) if sign > 0 else subsets.with_each(kept)
        candidates = sign * changed[torch.tensor(left, device=kept.device)]
        best = int(candidates.argmax())
        if float(candidates[best]) < sign * threshold:
            break
        tile = left.pop(best)
        kept[tile] = sign < 0
        logit = float(changed[tile])
    return MinimalSet(
        torch.tensor(left, dtype=torch.int64), logit, rounds, passes, subsets.closed_form
    )
