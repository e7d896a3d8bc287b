"""Questions come in by a pipe, reports go out by another.

Torch is imported with the first question. The process ends with the pipe that questions come in by,
so with the viewer, however that ends.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO, Any

from pathology.viewer.model.question import Answer, Job, Report, TileQuestion

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says of it, in a RuntimeError like any other."""


class CancelledError(Exception):
    """The job was given up."""


class Inbox:
    """Jobs as they come, and which of them were given up.

    Args:
        pipe: what they come by; when it closes, the process ends.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._pipe = pipe
        threading.Thread(target=self._read, daemon=True).start()

    def get(self) -> Job:
        """The next job; waits for one."""
        return self._jobs.get()

    def is_cancelled(self, number: int) -> bool:
        """Whether a job was given up."""
        return number in self._cancelled

    def _read(self) -> None:
        try:
            while True:
                message = pickle.load(self._pipe)
                if isinstance(message, Job):
                    self._jobs.put(message)
                else:
                    self._cancelled.add(message)
        finally:
            # Wherever the main thread is, nobody is left to answer to.
            os._exit(0)


class Worker:
    """Answers questions one by one.

    Args:
        inbox: where they come from.
        send: where reports go.
    """

    def __init__(self, inbox: Inbox, send: Callable[[Report], None]) -> None:
        self._inbox, self._send = inbox, send
        self._subjects: Any = None

    def run(self) -> None:
        """Answer until there is nobody left to answer to."""
        while True:
            self.do(self._inbox.get())

    def do(self, job: Job) -> None:
        """Answer a question, or say why not."""
        try:
            report = Report(job.number, answer=self._answer(job))
        except CancelledError:
            report = Report(job.number, cancelled=True)
        except Exception as error:
            report = Report(job.number, error=self._line(error))
        self._send(report)

    def _answer(self, job: Job) -> Answer:
        say, began = self._sayer(job.number), time.perf_counter()
        if self._subjects is None:
            say("loading libraries")
            from pathology.viewer.model.worker.subject import Subjects

            self._subjects = Subjects()
        from pathology.viewer.model.worker.ask_mask import ask_mask
        from pathology.viewer.model.worker.ask_tile import ask_tile

        subject = self._subjects.get(job.explained, job.means, say)
        loaded, progress = time.perf_counter(), self._progress(job.number)
        if isinstance(job.question, TileQuestion):
            answer = ask_tile(subject, job.question, progress)
        else:
            answer = ask_mask(subject, job.question, progress)
        seconds = {"loading": loaded - began, "answering": time.perf_counter() - loaded}
        return replace(answer, result={**answer.result, "seconds": seconds})

    def _sayer(self, number: int) -> Callable[[str], None]:
        def say(what: str) -> None:
            self._check(number)
            self._send(Report(number, what=what))

        return say

    def _progress(self, number: int) -> Callable[[Iterable[Any], int, str], Iterable[Any]]:
        """Tells how far a job is, and gives it up between two batches when that is asked for."""

        def progress(batches: Iterable[Any], total: int, what: str) -> Iterable[Any]:
            self._send(Report(number, 0, total, what))
            for done, batch in enumerate(batches, 1):
                self._check(number)
                yield batch
                self._send(Report(number, done, total, what))

        return progress

    def _check(self, number: int) -> None:
        if self._inbox.is_cancelled(number):
            raise CancelledError

    def _line(self, error: Exception) -> str:
        """An error in one line; of one that is our fault the rest goes to standard error."""
        from bcos_vit.errors import BcosError
        from pathology.errors import PathologyError

        said = " ".join(str(error).split())
        if isinstance(error, BcosError | PathologyError | ValueError):
            return said
        if type(error).__name__ == "OutOfMemoryError":
            return "the device has too little memory for this; start the viewer with --device cpu"
        if isinstance(error, MemoryError) or NO_MEMORY in said:
            return "there is too little memory for this on this machine"
        traceback.print_exception(error)
        return f"a fault of the viewer, {type(error).__name__}: {said[:300]}"


def main() -> None:
    """Answer questions from standard input on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the viewer says when to end
    questions = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What libraries print must not get between the reports.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(report: Report) -> None:
        pickle.dump(report, reports)
        reports.flush()

    Worker(Inbox(questions), send).run()
