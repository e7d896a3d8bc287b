"""Work in processes of this machine that may die.

They are started anew (spawn), and have one slide each at a time, through a pipe of their own: one
that dies is known with its slide.
"""

import multiprocessing
import pickle
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pathology.cohort.engine import Needs
from pathology.cohort.events import Counted, Ended, Event, Lost, Row, Started, Work
from pathology.cohort.failures import given_up
from pathology.cohort.graphics import graphics_cards
from pathology.cohort.worker_process import Count, Death, WorkerProcess, heard

GRACE_S = 10  # for workers to tidy up after themselves when the run is stopped


@dataclass(frozen=True, slots=True)
class Processes:
    """An :class:`~pathology.cohort.engine.Engine` of several processes.

    Where they need a graphics card and the machine has several, each sees one of them, in turn.

    Args:
        workers: how many, at least 1.
        retries: how often a slide is tried again whose worker died.

    Raises:
        ValueError: they are fewer.
    """

    workers: int
    retries: int = 1

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def run(self, rows: Sequence[Row], work: Work, needs: Needs) -> Generator[Event]:
        """Events as they come; ``work`` must be picklable."""
        context = multiprocessing.get_context("spawn")
        pickled = pickle.dumps(work)
        cards: list[str | None] = [*graphics_cards()] if needs.gpus else []
        waiting = deque(range(len(rows)))
        tries = [0] * len(rows)
        workers: list[WorkerProcess] = []

        def start(card: str | None) -> WorkerProcess:
            workers.append(WorkerProcess(context, pickled, card))
            return workers[-1]

        def give(worker: WorkerProcess) -> Started:
            """The next slide to a worker, or to a new one in its place."""
            index = waiting.popleft()
            tries[index] += 1
            if tries[index] > 1 and not worker.is_fresh:
                # What it has piled up may be what the other died of; and then it has to be gone.
                worker.stop()
                worker.process.join(GRACE_S)
            if not worker.give(index, rows[index]):
                worker = start(worker.card)
                if not worker.give(index, rows[index]):
                    worker.take(index)  # it died at once, which is what becomes of this try
            return Started(index, worker.name, tries[index])

        try:
            for number in range(min(self.workers, len(rows))):
                yield give(start(cards[number % len(cards)] if len(cards) > 1 else None))
            while busy := [worker for worker in workers if worker.index is not None]:
                for worker in heard(busy):
                    index = worker.index
                    assert index is not None
                    said = worker.said()
                    if isinstance(said, Count):
                        yield Counted(index, worker.name, said.tiles, said.waited_s)
                        continue
                    if isinstance(said, Death) and tries[index] <= self.retries:
                        waiting.append(index)  # last, when what was short may be there again
                        yield Lost(index, worker.name, said.why, tries[index])
                    else:
                        result = (
                            given_up(said.why, tries[index], rows[index]["path"])
                            if isinstance(said, Death)
                            else said.result
                        )
                        yield Ended(index, worker.name, result, said.seconds, tries[index])
                    if waiting:
                        yield give(worker)
                # One that has died with a slide still has to say so.
                workers[:] = [w for w in workers if w.index is not None or w.process.is_alive()]
        finally:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.process.join(GRACE_S)
                worker.process.kill()
                worker.process.join(GRACE_S)
