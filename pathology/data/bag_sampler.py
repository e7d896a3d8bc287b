"""Which bags an epoch shows, in which order, and which of their tiles."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pathology.data.samplers import TileSampler


class Draw(NamedTuple):
    """A bag to be shown in training with some of its tiles, drawn by these numbers alone.

    Args:
        bag: its place in the data set.
        epoch: of training.
        copy: how often the epoch has shown the bag before.
    """

    bag: int
    epoch: int
    copy: int


class BagSampler(TileSampler):
    """Draws of an epoch's bags, which depend on seed and epoch alone.

    Kinds of bags are spread over the epoch: any stretch of the order holds as many of each as its
    length has room for, give or take one. So a batch is seldom of one class, or without events.

    Args:
        kinds: of each bag.
        weights: how often bags are drawn in relation to one another; each once when omitted.
        seed: of all epochs.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        kinds: NDArray[np.integer],
        *,
        weights: NDArray[np.float64] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            np.arange(len(kinds)),
            weights=weights,
            strata=kinds,
            stretch=1,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def epoch_order(self, epoch: int) -> NDArray[np.integer]:
        """The bags of an epoch for all ranks."""
        rng = np.random.default_rng([self.seed, epoch])
        drawn = self.nearby if self.weights is None else self._draw(rng)
        assert self.strata is not None
        kinds = self.strata[drawn]
        # Copies of a bag are as far apart as there is room.
        line = np.lexsort((rng.random(len(drawn)), earlier(drawn), kinds))
        counts = np.bincount(kinds)
        starts = np.cumsum(counts) - counts
        place = np.arange(len(drawn)) - starts[kinds[line]]
        shift = rng.random(len(counts))
        spread = (place + shift[kinds[line]]) / counts[kinds[line]]
        return drawn[line[np.lexsort((rng.random(len(drawn)), spread))]]

    def __iter__(self) -> Iterator[Draw]:  # type: ignore[override]
        epoch, order = self.epoch, self.epoch_order(self.epoch)
        self.epoch += 1  # of the next pass, unless set_epoch says otherwise
        copies = earlier(order)
        start = self.rank * self.num_samples
        skipped, self.skipped = self.skipped, 0
        for i in range(start + skipped, start + self.num_samples):
            bag = i % len(order)  # the first few are shown twice where ranks do not come out even
            yield Draw(int(order[bag]), epoch, int(copies[bag]))


def earlier(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """How often each value has occurred before."""
    line = np.argsort(values, kind="stable")
    counts = np.unique(values, return_counts=True)[1]
    before = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.empty(len(values), np.int64)
    found[line] = before
    return found


def draw_tiles(
    count: int, most: int | None, dropout: float, seed: int, draw: Draw
) -> NDArray[np.int64]:
    """Tiles of a bag that one draw shows, in their order.

    Args:
        count: tiles of the bag.
        most: tiles shown at most; any number when omitted.
        dropout: share of the bag's tiles left out, at least; one always stays.
        seed: of the training.
        draw: which bag, when.
    """
    kept = max(1, round((1 - dropout) * count)) if count else 0
    kept = kept if most is None else min(kept, most)
    if kept == count:
        return np.arange(count)
    rng = np.random.default_rng([seed, *draw])
    return np.sort(rng.choice(count, kept, replace=False, shuffle=False))


def spread_tiles(count: int, most: int | None) -> NDArray[np.int64]:
    """Tiles of a bag that evaluation shows: all, or ``most`` evenly over their order."""
    if most is None or most >= count:
        return np.arange(count)
    return (np.arange(most) * count + count // 2) // most
