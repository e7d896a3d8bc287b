"""Open slides of one process: the few used last, whatever the number of slides in a cohort."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pathology.slides import Slide

# Slides that a forked child found open. Freeing a handle there may wait for ever on a lock that
# another thread of the parent held at that moment, so they are kept and never touched.
_inherited: list[OrderedDict[int, Slide]] = []


class SlidePool:
    """Slides by number, opened when first asked for; the one not used longest is let go.

    Every process opens its own: a pool travels to a worker empty, forked or pickled. Threads may
    share one.

    Args:
        opener: opens a slide by its number; must itself be picklable.
        capacity: slides kept open at most.
    """

    def __init__(self, opener: Callable[[int], Slide], capacity: int = 32) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self._opener = opener
        self._capacity = capacity
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Slide] = OrderedDict()

    def __getitem__(self, number: int) -> Slide:
        """The slide of this number, open.

        Raises:
            SlideError: it cannot be opened.
        """
        if self._process != os.getpid():
            _inherited.append(self._open)
            self._start()
        with self._lock:
            slide = self._open.get(number)
            if slide is None:
                slide = self._open[number] = self._opener(number)
            self._open.move_to_end(number)
            while len(self._open) > self._capacity:
                # Not closed: a thread may be reading it. Its file is freed with the last reference.
                self._open.popitem(last=False)
            return slide

    def __len__(self) -> int:
        """How many are open in this process."""
        return len(self._open) if self._process == os.getpid() else 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_opener": self._opener, "_capacity": self._capacity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
