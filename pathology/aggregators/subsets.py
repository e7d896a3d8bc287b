"""The logit of any of a bag's tiles, without running the aggregator again.

Where a bag is a weighted sum of what its tiles give, taking tiles out or putting some in is
arithmetic on two sums: with masses ``m_i`` and values ``v_i``, ``z = sum m_i v_i / sum m_i``, and
without tile j ``z = (sum m_i v_i - m_j v_j) / (sum m_i - m_j)``. Everything is in float64.

Shapes: N tiles, M numbers per tile, S subsets.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Finish = Callable[[Tensor], Tensor]
"""``(S, M)`` sums to ``(S,)`` logits."""

# Subsets whose sums are taken through the layers behind them at a time.
_AT_ONCE = 4096
_NUMBERS_AT_ONCE = 2**22


class Subsets(Protocol):
    """The logits, for one output, of subsets of a fixed set of tiles; all tensors are float64."""

    closed_form: bool
    """Whether that is arithmetic on sums, not the aggregator run on each subset."""

    def logits(self, kept: Tensor) -> Tensor:
        """``(S,)`` of subsets ``(S, N)`` bool."""

    def without_each(self, kept: Tensor) -> Tensor:
        """``(N,)`` of ``kept`` ``(N,)`` bool less each tile; as it is, less a tile not in it."""

    def with_each(self, kept: Tensor) -> Tensor:
        """``(N,)`` of ``kept`` ``(N,)`` bool and each tile; as it is, with a tile already in it."""


class WeightedSum:
    """``z = sum_i m_i v_i``.

    Args:
        values: ``(N, M)`` v.
        masses: ``(N,)`` m, at least 0.
        finish: makes logits of sums.
    """

    closed_form = True

    def __init__(self, values: Tensor, masses: Tensor, finish: Finish) -> None:
        self.values, self.masses, self.finish = values.detach(), masses.detach(), finish

    def logits(self, kept: Tensor) -> Tensor:
        return self._finished((kept * self.masses) @ self.values)

    def without_each(self, kept: Tensor) -> Tensor:
        change = (kept * self.masses)[:, None] * self.values
        return self._finished(change.sum(0) - change)

    def with_each(self, kept: Tensor) -> Tensor:
        change = self.masses[:, None] * self.values
        total = (kept[:, None] * change).sum(0)
        return self._finished(total + ~kept[:, None] * change)

    def _finished(self, sums: Tensor) -> Tensor:
        return torch.cat([self.finish(part) for part in sums.split(_AT_ONCE)])


class NormalisedSum(WeightedSum):
    """``z = sum_i m_i v_i / sum_i m_i`` with ``m_i = exp(s_i)``: softmax over the subset.

    Args:
        values: ``(N, M)`` v.
        scores: ``(N,)`` s; all the same for a mean.
        finish: makes logits of ``z``.
    """

    def __init__(self, values: Tensor, scores: Tensor, finish: Finish) -> None:
        self.values, self.scores, self.finish = values.detach(), scores.detach(), finish

    def logits(self, kept: Tensor) -> Tensor:
        return self._finished(self._weights(kept) @ self.values)

    def without_each(self, kept: Tensor) -> Tensor:
        weights = self._weights(kept)
        change = weights[:, None] * self.values
        # A tile that outweighs all others leaves little behind: nothing to subtract it from.
        heavy = weights > 0.5
        left = torch.where(heavy, 1.0, 1 - weights)
        sums = (change.sum(0) - change) / left[:, None]
        for tile in heavy.nonzero().flatten().tolist():
            others = kept.clone()
            others[tile] = False
            sums[tile] = self._weights(others) @ self.values
        return self._finished(sums)

    def with_each(self, kept: Tensor) -> Tensor:
        inside = self._weights(kept) @ self.values
        # Share of the newcomer: its mass over that of all, from the logarithm of the old mass.
        mass = self.scores.masked_fill(~kept, -torch.inf).logsumexp(0)
        share = torch.where(kept, 0, (self.scores - mass).sigmoid())[:, None]
        return self._finished((1 - share) * inside + share * self.values)

    def _weights(self, kept: Tensor) -> Tensor:
        return softmax_of_kept(self.scores, kept)


class ReweightedTerms:
    """``sum_i f_i(a_i)`` with softmax weights ``a_i`` over the subset and any functions ``f_i``.

    No sums stand for tiles here: every subset asks for all terms, but not for what is before them.

    Args:
        terms: makes ``(S, N)`` terms of ``(S, N)`` weights; those of absent tiles do not matter.
        scores: ``(N,)`` s.
        width: numbers that a term takes on its way, for memory's sake.
        finish: makes logits of ``(S, 1)`` sums.
    """

    closed_form = False

    def __init__(
        self, terms: Callable[[Tensor], Tensor], scores: Tensor, width: int, finish: Finish
    ) -> None:
        self.terms, self.scores, self.finish = terms, scores.detach(), finish
        self._at_once = max(1, _NUMBERS_AT_ONCE // max(1, width * len(scores)))

    def logits(self, kept: Tensor) -> Tensor:
        parts = [
            (self.terms(softmax_of_kept(self.scores, part)) * part).sum(-1, keepdim=True)
            for part in kept.split(self._at_once)
        ]
        return self.finish(torch.cat(parts))

    def without_each(self, kept: Tensor) -> Tensor:
        return self.logits(kept & ~self._each(kept))

    def with_each(self, kept: Tensor) -> Tensor:
        return self.logits(kept | self._each(kept))

    def _each(self, kept: Tensor) -> Tensor:
        return torch.eye(len(kept), dtype=torch.bool, device=kept.device)


def softmax_of_kept(scores: Tensor, kept: Tensor) -> Tensor:
    """Softmax of scores ``(N,)`` over what is kept, 0 elsewhere, also where nothing is kept.

    Args:
        scores: ``(N,)``.
        kept: ``(..., N)`` bool.

    Returns:
        As ``kept``.
    """
    return scores.masked_fill(~kept, torch.finfo(scores.dtype).min).softmax(-1) * kept


class TopMean:
    """The mean of the highest values.

    Args:
        values: ``(N,)``.
        chosen: how many count, of so many tiles; grows by at most one with each tile.
        finish: makes logits of ``(S, 1)`` means.
    """

    closed_form = True

    def __init__(self, values: Tensor, chosen: Callable[[int], int], finish: Finish) -> None:
        self.values, self.chosen, self.finish = values.detach(), chosen, finish

    def logits(self, kept: Tensor) -> Tensor:
        ranked = self.values.masked_fill(~kept, -torch.inf).sort(-1, descending=True).values
        counts = [self.chosen(n) if n else 0 for n in kept.sum(-1).tolist()]
        means = [
            row[:k].mean() if k else row.new_zeros(())
            for row, k in zip(ranked, counts, strict=True)
        ]
        return self.finish(torch.stack(means)[:, None])

    def without_each(self, kept: Tensor) -> Tensor:
        inside, sums = self._ranked(kept)
        tiles = len(inside)
        means = self.values.new_full((len(self.values),), self._mean(sums, tiles))
        if tiles > 1:
            k = self.chosen(tiles - 1)
            # Of the others, the k highest: the k + 1 highest of all less the tile, if it is there.
            means[inside] = sums[k] / k
            first = inside[:k]
            means[first] = (sums[k + 1] - self.values[first]) / k
        else:
            means[inside] = 0
        return self.finish(means[:, None])

    def with_each(self, kept: Tensor) -> Tensor:
        inside, sums = self._ranked(kept)
        tiles = len(inside)
        k = self.chosen(tiles + 1)
        means = self.values.new_full((len(self.values),), self._mean(sums, tiles))
        new = ~kept
        if tiles < k:
            means[new] = (sums[tiles] + self.values[new]) / k
        else:
            last = self.values[inside[k - 1]]
            means[new] = (sums[k - 1] + torch.maximum(self.values[new], last)) / k
        return self.finish(means[:, None])

    def _ranked(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles that are kept, highest first, and sums of the first 0, 1, 2, ... of them."""
        inside = kept.nonzero().flatten()
        inside = inside[self.values[inside].argsort(descending=True)]
        sums = self.values[inside].cumsum(0)
        return inside, torch.cat([sums.new_zeros(1), sums])

    def _mean(self, sums: Tensor, tiles: int) -> float:
        """Of the highest of so many tiles."""
        return float(sums[self.chosen(tiles)] / self.chosen(tiles)) if tiles else 0.0
