"""What work says of how far it has come, wherever it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Sink = Callable[[int, float], None]
_SINK: ContextVar[Sink | None] = ContextVar("sink", default=None)


def count(tiles: int = 0, waited_s: float = 0.0) -> None:
    """Tell the engine, if one listens.

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
