"""Which slides wait, are tried, and have ended, where tries may die and may be doubled."""

import statistics
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Straggling:
    """When a slide is begun once more elsewhere, though it is still being worked on.

    A machine may be slow or hang without being dead. Nothing waits by then and a worker is free,
    so that it costs nobody anything; a slide that is merely large is not hurried by it.

    Args:
        times: as long as the median of the slides before it.
        floor_s: and at least so long, seconds.
        least: slides that must have ended, to know what is usual.
    """

    times: float = 3.0
    floor_s: float = 60.0
    least: int = 3


class Attempts:
    """The slides of a run, by their index.

    Args:
        count: how many.
        retries: how often a slide is tried again whose worker died.
        straggling: when one is doubled.
    """

    def __init__(self, count: int, retries: int, straggling: Straggling) -> None:
        self.waiting = deque(range(count))
        self.left = count
        self._retries = retries
        self._straggling = straggling
        self._slides = [_Slide() for _ in range(count)]
        self._usual: list[float] = []

    def begin(self, index: int, worker: Hashable, now: float) -> int:
        """A worker begins with a slide; returns how often that was begun, with this time."""
        slide = self._slides[index]
        slide.begun += 1
        slide.since[worker] = now
        return slide.begun

    def begun(self, index: int) -> int:
        """How often a slide was begun."""
        return self._slides[index].begun

    def has_ended(self, index: int) -> bool:
        """It is done with, well or not."""
        return self._slides[index].ended

    def seconds(self, index: int, worker: Hashable, now: float) -> float:
        """Since a worker began with a slide."""
        return now - self._slides[index].since[worker]

    def died(self, index: int, worker: Hashable) -> int:
        """A worker died at a slide; returns how many have, 0 where there is nothing left to hope.

        The slide waits again, as the last, when what was short may be there again; unless
        another worker is at it still.
        """
        slide = self._slides[index]
        del slide.since[worker]
        slide.deaths += 1
        if slide.since:
            return slide.deaths
        if slide.deaths > self._retries:
            return 0
        self.waiting.append(index)
        return slide.deaths

    def end(self, index: int, seconds: float | None) -> list[Hashable]:
        """A slide is done with; returns the workers that are still at it.

        Args:
            index: of the slide.
            seconds: that it took; ``None`` where it has failed, which says nothing of others.
        """
        slide = self._slides[index]
        assert not slide.ended
        slide.ended = True
        self.left -= 1
        # What was there already takes no time: not what is usual.
        if seconds is not None and seconds > self._straggling.floor_s / 60:
            self._usual.append(seconds)
        return list(slide.since)

    def leave(self, index: int, worker: Hashable) -> None:
        """A worker is at a slide no more."""
        self._slides[index].since.pop(worker, None)

    def straggler(self, now: float) -> int | None:
        """The slide to begin once more: of those that take too long, the longest begun."""
        rule = self._straggling
        if self.waiting or len(self._usual) < rule.least:
            return None
        limit = max(rule.floor_s, rule.times * statistics.median(self._usual))
        slow = [
            (next(iter(slide.since.values())), index)
            for index, slide in enumerate(self._slides)
            if not slide.ended and len(slide.since) == 1
        ]
        since, index = min(slow, default=(now, -1))
        return index if now - since > limit else None


@dataclass(slots=True)
class _Slide:
    """One slide's tries."""

    begun: int = 0
    deaths: int = 0
    ended: bool = False
    since: dict[Hashable, float] = field(default_factory=dict)
