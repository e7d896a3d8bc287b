"""What work says of how far it has come, wherever it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Sink = Callable[[int, float], None]
_SINK: ContextVar[Sink | None] = ContextVar("sink", default=None)


def count(tiles: int = 0, waited_s: float = 0.0) -> None:
    """Tell the engine, if one listens; from the thread that work was called in.

    Args:
        tiles: worked on since the last time.
        waited_s: seconds waited for tiles to be read.
    """
    sink = _SINK.get()
    if sink is not None:
        sink(tiles, waited_s)


@contextmanager
def listening(sink: Sink) -> Iterator[None]:
    """``sink`` is told while the block runs."""
    token = _SINK.set(sink)
    try:
        yield
    finally:
        _SINK.reset(token)


@contextmanager
def gathering(sink: Sink, every_s: float = 1.0) -> Iterator[None]:
    """``sink`` is told sums, at most once in ``every_s`` seconds, and the rest when the block ends.

    For engines whose messages cost something: work counts after every batch.
    """
    tiles, waited_s, told = 0, 0.0, time.monotonic()

    def add(more: int, longer_s: float) -> None:
        nonlocal tiles, waited_s
        tiles += more
        waited_s += longer_s
        if time.monotonic() >= told + every_s:
            tell()

    def tell() -> None:
        nonlocal tiles, waited_s, told
        if tiles or waited_s:
            sink(tiles, waited_s)
        tiles, waited_s, told = 0, 0.0, time.monotonic()

    try:
        with listening(add):
            yield
    finally:
        tell()
