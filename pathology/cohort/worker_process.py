"""A process that works on slides of this machine, one at a time, and the pipe to it."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext

from pathology.cohort.counting import gathering
from pathology.cohort.events import Row, Work
from pathology.cohort.failures import ended_by, portable
from pathology.cohort.graphics import see_only
from pathology.cohort.worker import take_one_core, worker_name


@dataclass(frozen=True, slots=True)
class Count:
    """What work has counted since it last said so."""

    tiles: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class End:
    """What work returned or raised."""

    result: str | Exception
    seconds: float


@dataclass(frozen=True, slots=True)
class Death:
    """Why the process is no more."""

    why: str
    seconds: float


class WorkerProcess:
    """A process, and the slide that it is at.

    Args:
        context: what starts it.
        pickled: the work.
        card: the graphics card that it sees; ``None`` for whatever there is.
    """

    def __init__(self, context: SpawnContext, pickled: bytes, card: str | None = None) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, pickled, card), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.name = worker_name(self.process.pid)
        self.card = card
        self.index: int | None = None
        self.is_fresh = True
        self._began = 0.0

    def give(self, index: int, row: Row) -> bool:
        """Have it work on a row; false when it is no more."""
        try:
            self.pipe.send(row)
        except OSError:  # which a pipe that was closed raises, too
            return False
        self.take(index)
        return True

    def take(self, index: int) -> None:
        """What it says next is about this row."""
        self.index, self._began = index, time.monotonic()

    def said(self) -> Count | End | Death:
        """What it said about its slide, which it has left unless it only counts."""
        try:
            said: Count | End | Death = self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.pipe.close()
            self.process.join()
            why = ended_by(self.process.exitcode or 0)
            said = Death(why, time.monotonic() - self._began)
        if not isinstance(said, Count):
            self.index, self.is_fresh = None, False
        return said

    def stop(self) -> None:
        """Ask it to end: at once when it is at work."""
        if self.index is not None:
            self.process.terminate()
        self.pipe.close()


def heard(workers: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    """Those that have something to say, or have died; waits until there is one."""
    ready = wait([worker.pipe for worker in workers])  # a dead one's is at its end, to be read, too
    return [worker for worker in workers if worker.pipe in ready]


def serve(pipe: Connection, pickled: bytes, card: str | None) -> None:
    """A worker's life: rows in, counts and ends out, until the pipe ends."""
    take_one_core()  # before numpy is there
    if card is not None:
        see_only(card)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # drafts are removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Work | None = None

    def tell(tiles: int, waited_s: float) -> None:
        with suppress(OSError):  # the parent is gone, and this process will soon be
            pipe.send(Count(tiles, waited_s))

    while True:
        try:
            row = pipe.recv()
        except (EOFError, OSError):
            return
        result: str | Exception
        began = time.monotonic()
        try:
            with gathering(tell):
                if work is None:
                    work = pickle.loads(pickled)
                assert work is not None
                result = work(row)
        except Exception as error:
            result = portable(error)
        try:
            pipe.send(End(result, time.monotonic() - began))
        except OSError:
            return


def _end_with_parent() -> None:
    """A worker whose parent was killed must not go on writing beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
