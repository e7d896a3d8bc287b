"""What engines tell while they work on a cohort."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
"""A slide's row of the manifest: ``slide_id``, ``path`` and more."""
Work = Callable[[Row], str]
"""Does all that there is to do for a slide, and returns a line about it.

It writes its results complete or not at all, skips those that are there, and may be pickled: it is
called in other processes.
"""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker begins with a slide.

    Args:
        index: of the slide's row.
        worker: a name of the process, with its machine where there are several: ``node3:4711``.
        tries: with this one.
    """

    index: int
    worker: str
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Counted:
    """How far a worker has come since it last told, about once a second.

    Args:
        index: of the slide's row.
        worker: its name.
        tiles: that were worked on.
        waited_s: seconds that the model, or whatever uses the tiles, waited for them to be read.
    """

    index: int
    worker: str
    tiles: int = 0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker died at a slide, which will be tried again.

    Args:
        index: of the slide's row.
        worker: its name.
        why: in words.
        tries: so far.
    """

    index: int
    worker: str
    why: str
    tries: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A slide is done with, once for each slide.

    Args:
        index: of the slide's row.
        worker: its name.
        result: the line about it, or what went wrong.
        seconds: of the last try.
        tries: how often it was begun.
    """

    index: int
    worker: str
    result: str | Exception
    seconds: float
    tries: int = 1


Event = Started | Counted | Lost | Ended
