"""How a run stands: events in, numbers out."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pathology.cohort.events import Counted, Ended, Event, Lost, Row, Started

OVER_S = 30.0
"""What is called "now" of a speed: about so long."""


class Tally:
    """What is known of a run so far.

    Slides that were done before cost next to nothing, so that how long the rest will take is
    judged by those that were really worked on: tiles were counted at them, or, where work counts
    none, nothing was known of them when the run began. Where such slides are made anew after all,
    others are expected to be, in the same share.

    Args:
        rows: of the slides.
        done_before: the ``slide_id`` of those that are known to be done.
        clock: seconds of a clock that is never set.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        done_before: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slides = len(rows)
        self.done = self.failed = self.tiles = self.tries = self.losses = 0
        self.waited_s = self._busy_s = 0.0
        self._clock = clock
        self._began = clock()
        self._before = {i for i, row in enumerate(rows) if str(row["slide_id"]) in done_before}
        self._not_looked_at = set(self._before)  # of those
        self._anew = 0  # of those
        self._workers: set[str] = set()
        self._tries: dict[tuple[int, str], _Try] = {}
        self._counted: set[int] = set()  # slides that are being worked on, at which tiles were
        self._worked = _Sum()
        self._idle: dict[int, float] = {}  # seconds of slides that ended well without a tile
        self._tile_speed, self._wait_speed, self._busy_speed = Speed(), Speed(), Speed()

    def take(self, event: Event) -> None:
        """One event after the other."""
        if isinstance(event, Started):
            self.tries += 1
            self._workers.add(event.worker)
            now = self._clock()
            self._tries[event.index, event.worker] = _Try(now, now)
        elif isinstance(event, Counted):
            self._count(event)
        elif isinstance(event, Lost):
            self.losses += 1
            self._workers.discard(event.worker)
            lost = self._tries.pop((event.index, event.worker), None)
            if lost is not None:
                self._worked.seconds += self._clock() - lost.began  # others may die as well
        else:
            self._end(event)

    def _count(self, event: Counted) -> None:
        now = self._clock()
        self.tiles += event.tiles
        self.waited_s += event.waited_s
        at = self._tries.get((event.index, event.worker))
        since = now if at is None else at.told
        if at is not None:
            at.told = now
        self._tile_speed.add(event.tiles, since, now)
        self._wait_speed.add(event.waited_s, since, now)
        self._busy_speed.add(now - since, since, now)
        self._busy_s += now - since
        if event.index in self._idle:  # it came by a longer way than the slide's end
            self._worked.add(self._idle.pop(event.index))
        elif at is not None:
            at.tiles += event.tiles
            at.waited_s += event.waited_s
            self._counted.add(event.index)
            if event.index in self._not_looked_at:
                self._not_looked_at.discard(event.index)
                self._anew += 1

    def _end(self, event: Ended) -> None:
        self._not_looked_at.discard(event.index)
        if event.index in self._counted:
            self._worked.add(event.seconds)
        elif isinstance(event.result, str):
            self._idle[event.index] = event.seconds
        if isinstance(event.result, str):
            self.done += 1
        else:
            self.failed += 1
        for index, worker in [key for key in self._tries if key[0] == event.index]:
            del self._tries[index, worker]
            if worker != event.worker:  # it was slower, and is stopped
                self._workers.discard(worker)
        self._counted.discard(event.index)

    def of_try(self, index: int, worker: str) -> tuple[int, float]:
        """Tiles, and seconds of waiting for them, of a worker at a slide that has not ended yet."""
        at = self._tries.get((index, worker))
        return (at.tiles, at.waited_s) if at is not None else (0, 0.0)

    @property
    def ended(self) -> int:
        """Slides that are done with."""
        return self.done + self.failed

    @property
    def there(self) -> int:
        """Slides that ended well without work: they were done before."""
        return len(self._idle) - len(self._new_without_tiles)

    @property
    def _new_without_tiles(self) -> list[float]:
        """Seconds of slides that were worked on, where work counts no tiles."""
        if self.tiles:
            return []
        return [seconds for i, seconds in self._idle.items() if i not in self._before]

    @property
    def working(self) -> int:
        """Slides that somebody works on."""
        return len({index for index, _ in self._tries})

    @property
    def waiting(self) -> int:
        """Slides that nobody has begun with."""
        return self.slides - self.ended - self.working

    @property
    def workers(self) -> int:
        """Processes that work, or have worked and wait for more."""
        return len(self._workers)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._began

    @property
    def tiles_per_s(self) -> float:
        """Of all workers together, at present."""
        return self._tile_speed.at(self._clock())

    @property
    def waited_share(self) -> float:
        """Share of the workers' time at present that models wait for tiles, from 0 to 1."""
        now = self._clock()
        busy = self._busy_speed.at(now)
        return min(1.0, self._wait_speed.at(now) / busy) if busy > 0 else 0.0

    @property
    def mean_tiles_per_s(self) -> float:
        """Of all workers together, since the run began."""
        return self.tiles / self.seconds if self.seconds > 0 else 0.0

    @property
    def mean_waited_share(self) -> float:
        """Share of the workers' time, while they had tiles, that models waited, from 0 to 1."""
        return min(1.0, self.waited_s / self._busy_s) if self._busy_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take; ``None`` while nobody can know.

        A slide takes as long as slides took on the average. Those that have taken longer than
        that and are not done yet are among them, with what they have taken so far: else the first
        to end, which are the small ones, would speak for all.
        """
        looked_at = len(self._before) - len(self._not_looked_at)
        still_done = len(self._not_looked_at) * (1 - self._anew / max(1, looked_at))
        left = self.slides - self.ended - still_done
        if not left:
            return 0.0
        new = self._new_without_tiles
        worked = self._worked.slides + len(new)
        if not worked:
            return None
        now = self._clock()
        at_work = [
            now - t.began for (i, _), t in self._tries.items() if i not in self._not_looked_at
        ]
        mean_s = (self._worked.seconds + sum(new)) / worked
        long = [seconds for seconds in at_work if seconds > mean_s]
        mean_s = (mean_s * worked + sum(long)) / (worked + len(long))
        rest_s = left * mean_s - sum(min(seconds, mean_s) for seconds in at_work)
        return max(rest_s, 0.0) / max(1, min(self.workers, left))


class Speed:
    """Something per second over about the last ``over_s`` seconds.

    What was long ago counts ever less: ``exp(-age / over_s)``.
    """

    def __init__(self, over_s: float = OVER_S) -> None:
        self._over_s = over_s
        self._began: float | None = None
        self._sum = 0.0
        self._at = 0.0

    def add(self, amount: float, began: float, now: float) -> None:
        """``amount`` was done evenly from ``began`` to ``now``."""
        if self._began is None:
            self._began = self._at = began
        self._began = min(self._began, began)
        share = (now - began) / self._over_s
        weight = -math.expm1(-share) / share if share > 0 else 1.0
        self._sum = self._sum * math.exp(-(now - self._at) / self._over_s) + amount * weight
        self._at = now

    def at(self, now: float) -> float:
        """Per second."""
        if self._began is None or now <= self._began:
            return 0.0
        seen_s = -self._over_s * math.expm1(-(now - self._began) / self._over_s)
        return self._sum * math.exp(-(now - self._at) / self._over_s) / seen_s


@dataclass(slots=True)
class _Try:
    """A worker at a slide: since when, when it last told, and what."""

    began: float
    told: float
    tiles: int = 0
    waited_s: float = 0.0


@dataclass(slots=True)
class _Sum:
    """Slides that were worked on, and how long they took together."""

    slides: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.slides += 1
        self.seconds += seconds
