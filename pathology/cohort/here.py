"""Work in this process, slide after slide."""

import time
from collections.abc import Generator, Sequence

from pathology.cohort.counting import listening
from pathology.cohort.engine import Needs
from pathology.cohort.events import Counted, Ended, Event, Row, Started, Work
from pathology.cohort.worker import worker_name


class Here:
    """An :class:`~pathology.cohort.engine.Engine` that is this process."""

    def run(self, rows: Sequence[Row], work: Work, needs: Needs) -> Generator[Event]:
        """Events in the order of the rows; what work counts is told when its slide ends."""
        worker = worker_name()
        for index, row in enumerate(rows):
            yield Started(index, worker)
            tiles, waited_s = 0, 0.0

            def add(more: int, longer_s: float) -> None:
                nonlocal tiles, waited_s
                tiles += more
                waited_s += longer_s

            result: str | Exception
            began = time.monotonic()
            try:
                with listening(add):
                    result = work(row)
            except Exception as error:
                result = error
            seconds = time.monotonic() - began
            if tiles or waited_s:
                yield Counted(index, worker, tiles, waited_s)
            yield Ended(index, worker, result, seconds)
