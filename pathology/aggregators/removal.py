"""What a bag's logit would be without some of its tiles, or with others: effects, not shares.

A contribution says how a logit is made up; an effect says what happens when a tile is taken away.
Only for :class:`BcosGatedSum` are the two the same. Perturbing bags as HIPPO does (Kaczmarzyk et
al., 2024, arXiv:2409.03080), but by closed forms wherever the aggregator has one: a round over all
tiles of a bag is then arithmetic on two sums, where otherwise each tile is a forward pass.

Shapes: N tiles, D features.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.explain import check_target, checked_bag
from pathology.aggregators.subsets import Subsets

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps an iterable, given its length and what is being done."""

# Features that a batch of forward passes may hold where there is no closed form.
_FEATURES_AT_ONCE = 2**24


def _silent(steps: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    return steps


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """How a bag's logit changes, each time from the same bag.

    Args:
        effects: ``(changes,)`` float64, in logits: of taking away, the logit minus what it becomes;
            of adding, what it becomes minus the logit. Positive where tiles speak for the output.
        logit: of the bag as it is.
        closed_form: by arithmetic on sums; otherwise by running the aggregator each time.
    """

    effects: Tensor
    logit: float
    closed_form: bool


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Tiles in the order in which a greedy search took them.

    Args:
        tiles: ``(rounds,)`` indices.
        logits: ``(rounds + 1,)`` float64 after 0, 1, 2, ... of them.
        closed_form: as in :class:`Effects`.
    """

    tiles: Tensor
    logits: Tensor
    closed_form: bool


def removal_effects(
    aggregator: Aggregator, features: Tensor, target: int, *, progress: Progress = _silent
) -> Effects:
    """What each tile matters: the logit minus the logit without it.

    Args:
        aggregator: any, in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.
        target: the output.
        progress: wraps batches of forward passes, where these are needed.

    Returns:
        Effects ``(N,)``.

    Raises:
        ValueError: features of the wrong shape or with NaN, ``target`` is no output, the aggregator
            is in training mode.
        TypeError: features are not floating point, or wider than the aggregator's weights.
    """
    return _without_each(*_whole(aggregator, features, target, progress))


def closed_removal_effects(aggregator: Aggregator, features: Tensor, target: int) -> Effects | None:
    """As :func:`removal_effects` where there is a closed form; None where there is none.

    Raises:
        ValueError, TypeError: as :func:`removal_effects`.
    """
    bag, subsets = _closed(aggregator, features, target)
    if subsets is None or not subsets.closed_form:
        return None
    return _without_each(subsets, _all(bag))


def set_removal_effects(
    aggregator: Aggregator,
    features: Tensor,
    sets: Tensor,
    target: int,
    *,
    progress: Progress = _silent,
) -> Effects:
    """What each set of tiles matters: the logit minus the logit without all of the set.

    Args:
        aggregator: any, in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.
        sets: ``(sets, N)`` bool, tiles to take away together.
        target: the output.
        progress: wraps batches of forward passes, where these are needed.

    Returns:
        Effects ``(sets,)``.

    Raises:
        ValueError, TypeError: as :func:`removal_effects`; ``sets`` of another shape or type.
    """
    subsets, kept = _whole(aggregator, features, target, progress)
    if sets.dtype != torch.bool:
        raise TypeError(f"sets must be bool, got {sets.dtype}")
    if sets.ndim != 2 or sets.shape[1] != len(kept):
        raise ValueError(f"sets must be (sets, {len(kept)}), got {tuple(sets.shape)}")
    logit = subsets.logits(kept[None])
    effects = logit - subsets.logits(~sets.to(kept.device))
    return Effects(effects, float(logit), subsets.closed_form)


def addition_effects(
    aggregator: Aggregator,
    features: Tensor,
    others: Tensor,
    target: int,
    *,
    progress: Progress = _silent,
) -> Effects:
    """What each tile of another bag would matter in this one: the logit with it minus the logit.

    Args:
        aggregator: any, in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.
        others: ``(others, D)`` features of tiles to add, one at a time.
        target: the output.
        progress: wraps batches of forward passes, where these are needed.

    Returns:
        Effects ``(others,)``.

    Raises:
        ValueError, TypeError: as :func:`removal_effects`.
    """
    tiles = torch.cat([checked_bag(aggregator, features), checked_bag(aggregator, others)])
    subsets, kept = _whole(aggregator, tiles, target, progress)
    kept = torch.arange(len(tiles), device=tiles.device) < len(features)
    logit = subsets.logits(kept[None])
    effects = subsets.with_each(kept)[len(features) :] - logit
    return Effects(effects, float(logit), subsets.closed_form)


def greedy_removal(
    aggregator: Aggregator,
    features: Tensor,
    target: int,
    rounds: int | None = None,
    *,
    until: float = -torch.inf,
    progress: Progress = _silent,
) -> Search:
    """Take away, again and again, the tile without which the logit is lowest.

    The tiles taken until the logit has fallen to a threshold are a small set that the output needs.

    Args:
        aggregator: any, in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.
        target: the output.
        rounds: tiles to take away at most; all when omitted.
        until: stops as soon as the logit is no higher.
        progress: wraps rounds; where there is no closed form, each is N forward passes.

    Raises:
        ValueError, TypeError: as :func:`removal_effects`.
    """
    subsets, kept = _whole(aggregator, features, target, _silent)
    return _greedy(subsets, kept, rounds, -1, until, 0, progress)


def greedy_addition(
    aggregator: Aggregator,
    features: Tensor,
    target: int,
    rounds: int | None = None,
    *,
    until: float = torch.inf,
    least: int = 0,
    progress: Progress = _silent,
) -> Search:
    """Put together a bag from nothing, each time by the tile with which the logit is highest.

    The tiles taken until the logit has risen to a threshold are a small set that is enough for the
    output.

    Args:
        aggregator: any, in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.
        target: the output.
        rounds: tiles to take at most; all when omitted.
        until: stops as soon as the logit is no lower.
        least: rounds before which it does not stop for that; 1 where an empty bag is no answer.
        progress: wraps rounds; where there is no closed form, each is N forward passes.

    Raises:
        ValueError, TypeError: as :func:`removal_effects`.
    """
    subsets, kept = _whole(aggregator, features, target, _silent)
    return _greedy(subsets, ~kept, rounds, +1, until, least, progress)


def _greedy(
    subsets: Subsets,
    kept: Tensor,
    rounds: int | None,
    sign: int,
    until: float,
    least: int,
    progress: Progress,
) -> Search:
    """Upwards (+1) by adding or downwards (-1) by removing, one tile a round."""
    if rounds is not None and rounds < 0:
        raise ValueError(f"rounds must be at least 0, got {rounds}")
    most = len(kept) if rounds is None else min(rounds, len(kept))
    tiles: list[int] = []
    logits = [float(subsets.logits(kept[None]))]
    for _ in progress(range(most), most, "searching"):
        if len(tiles) >= least and sign * logits[-1] >= sign * until:
            break
        after = subsets.with_each(kept) if sign > 0 else subsets.without_each(kept)
        candidates = (sign * after).masked_fill(kept == (sign > 0), -torch.inf)
        tile = int(candidates.argmax())
        kept[tile] = sign > 0
        tiles.append(tile)
        logits.append(float(after[tile]))
    device = kept.device
    return Search(
        torch.tensor(tiles, dtype=torch.int64, device=device),
        torch.tensor(logits, dtype=torch.float64, device=device),
        subsets.closed_form,
    )


def _whole(
    aggregator: Aggregator, features: Tensor, target: int, progress: Progress
) -> tuple[Subsets, Tensor]:
    """Subsets of a bag, by closed form where the aggregator has one, and the one with all tiles."""
    bag, subsets = _closed(aggregator, features, target)
    if subsets is None:
        subsets = EveryForward(aggregator, bag, target, progress)
    return subsets, _all(bag)


def _closed(aggregator: Aggregator, features: Tensor, target: int) -> tuple[Tensor, Subsets | None]:
    """A bag's features, checked, and its subsets where the aggregator has a closed form."""
    check_target(aggregator, target)
    bag = checked_bag(aggregator, features)
    if aggregator.training:
        raise ValueError("the aggregator is in training mode; call eval() first")
    with torch.no_grad(), torch.autocast(bag.device.type, enabled=False):
        return bag, aggregator.subsets(bag, target)


def _all(bag: Tensor) -> Tensor:
    """The subset with every tile."""
    return torch.ones(len(bag), dtype=torch.bool, device=bag.device)


def _without_each(subsets: Subsets, kept: Tensor) -> Effects:
    logit = subsets.logits(kept[None])
    effects = logit - subsets.without_each(kept)
    return Effects(effects, float(logit), subsets.closed_form)


class EveryForward:
    """Subsets of tiles by running the aggregator on each, in batches.

    Args:
        aggregator: any, in eval mode.
        features: ``(N, D)``.
        target: the output.
        progress: wraps batches.
    """

    closed_form = False

    def __init__(
        self, aggregator: Aggregator, features: Tensor, target: int, progress: Progress = _silent
    ) -> None:
        self.aggregator, self.features, self.target = aggregator, features, target
        self.progress = progress

    def logits(self, kept: Tensor) -> Tensor:
        batches = kept.split(self._at_once)
        return self._run(batches, len(batches))

    def without_each(self, kept: Tensor) -> Tensor:
        return self._run(*self._each(kept, False))

    def with_each(self, kept: Tensor) -> Tensor:
        return self._run(*self._each(kept, True))

    @property
    def _at_once(self) -> int:
        return max(1, _FEATURES_AT_ONCE // max(1, self.features.numel()))

    def _each(self, kept: Tensor, there: bool) -> tuple[Iterable[Tensor], int]:
        """Batches of ``kept`` with one tile changed in each row, and how many batches."""
        parts = torch.arange(len(kept), device=kept.device).split(self._at_once)

        def batches() -> Iterator[Tensor]:
            for tiles in parts:
                rows = kept.repeat(len(tiles), 1)
                rows[torch.arange(len(tiles), device=kept.device), tiles] = there
                yield rows

        return batches(), len(parts)

    def _run(self, batches: Iterable[Tensor], count: int) -> Tensor:
        found = [self.features.new_zeros(0, dtype=torch.float64)]
        for batch in self.progress(batches, count, "running subsets"):
            with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
                bags = self.features.expand(len(batch), -1, -1)
                found.append(self.aggregator(bags, batch)[:, self.target].double())
        return torch.cat(found)
