"""Sharing out groups of tiles, patients say, that must not be torn apart."""

from collections.abc import Mapping, Sequence

import numpy as np


def share_out(
    groups: Sequence[str], labels: Sequence[str], shares: Mapping[str, float], seed: int
) -> list[str]:
    """A part for each tile: all of a group in one, classes spread as evenly as groups allow.

    The largest groups are dealt first, each to the part that it leaves nearest to what it is to
    have of every class; among equals a random one.

    Args:
        groups: ``(n,)`` of tiles.
        labels: ``(n,)`` of tiles.
        shares: of all tiles, by part; positive, they need not sum to 1.
        seed: of what is left to chance.

    Returns:
        ``(n,)`` names of parts.
    """
    rng = np.random.default_rng(seed)
    names, owner = np.unique(np.asarray(groups), return_inverse=True)
    kinds, kind = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((len(names), len(kinds)))
    np.add.at(counts, (owner, kind), 1)
    weights = np.array(list(shares.values()), np.float64)
    left = np.outer(weights / weights.sum(), counts.sum(0))
    parts = np.empty(len(names), int)
    order = rng.permutation(len(names))
    for group in order[np.argsort(-counts[order].sum(1), kind="stable")]:
        # What squares of what is missing lose by it; of each class in units of its size.
        gain = ((left**2 - (left - counts[group]) ** 2) / counts.sum(0)).sum(1)
        best = np.flatnonzero(gain == gain.max())
        parts[group] = rng.choice(best)
        left[parts[group]] -= counts[group]
    keys = list(shares)
    return [keys[part] for part in parts[owner]]
