"""What works on a cohort: this process, several, or a cluster's."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pathology.cohort.events import Event, Row, Work


@dataclass(frozen=True, slots=True)
class Needs:
    """What a worker needs of its machine.

    Args:
        cpus: processors.
        gpus: graphics cards.
        gpus_if_any: take ``gpus`` where the machines have them, do without where they have none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    gpus_if_any: bool = False


class Engine(Protocol):
    """Does a piece of work for each row, in whatever order, and tells about it.

    A worker that dies takes the try at its slide with it and nothing else: the slide is tried
    again, some times, then it has failed. What work raises is its slide's outcome and is not tried
    again. Closing the generator stops the workers.
    """

    def run(self, rows: Sequence[Row], work: Work, needs: Needs) -> Generator[Event]:
        """Events as they come; one :class:`~pathology.cohort.events.Ended` for every row."""
