"""Open slides of a viewer: one handle each, the few used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

MOST_OPEN = 16

Handle = TypeVar("Handle")


class Handles(Generic[Handle]):
    """Things by key, opened when first asked for; the one not used for longest is let go.

    When several threads ask for the same at once, one opens it and the others wait for that one;
    who asks for another does not wait. What could not be opened is tried again at the next asking.

    A handle that is let go is not closed, for a thread may be reading it: its file is freed with
    the last reference.

    Args:
        most: handles kept at most.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        self._most = most
        self._lock = threading.Lock()
        self._open: OrderedDict[Hashable, Future[Handle]] = OrderedDict()

    def get(self, key: Hashable, opener: Callable[[], Handle]) -> Handle:
        """What is open under ``key``; what ``opener`` returns where nothing is."""
        with self._lock:
            found = self._open.get(key)
            is_ours = found is None
            if found is None:
                found = self._open[key] = Future()
            self._open.move_to_end(key)
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        if is_ours:
            try:
                found.set_result(opener())
            except BaseException as error:
                found.set_exception(error)
                with self._lock:
                    if self._open.get(key) is found:
                        del self._open[key]
        return found.result()

    def peek(self, key: Hashable) -> Handle | None:
        """What is open under ``key``, without opening or waiting."""
        with self._lock:
            found = self._open.get(key)
        is_there = found is not None and found.done() and found.exception() is None
        return found.result() if found is not None and is_there else None

    def drop(self, key: Hashable) -> None:
        """Let go of what is open under ``key``, if anything is."""
        with self._lock:
            self._open.pop(key, None)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._open.clear()
