"""One piece of work for every slide of a cohort: with progress, in one process or in several.

Workers are processes that are started anew (spawn), one slide each at a time. A worker that dies
takes its slide's result with it and nothing else: its slide is reported and another is started.
"""

import csv
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_vit.errors import BcosError
from pathology.errors import OutputError, PathologyError, SlideError
from pathology.outputs import complete_file

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
Work = Callable[[Row], str]
Outcome = tuple[int, str | Exception]  # a row's place in the table, and its line or what went wrong

GRACE_S = 10  # for workers to tidy up after themselves when the run is stopped


def each_slide(
    table: "pd.DataFrame",
    work: Work,
    what: str,
    keep_going: bool = False,
    workers: int = 0,
    failures: Path | None = None,
) -> int:
    """Do ``work`` for every slide, with progress; returns the exit code.

    Args:
        table: rows with ``slide_id`` and ``path``, see
            :func:`~pathology.data.slide_list.list_slides`.
        work: takes a row, returns one line about what it did. It writes its own results, complete
            or not at all, and skips what is there, so that a run that was stopped can be run again.
        what: shown beside the progress.
        keep_going: list slides that fail and exit with 3, rather than stop at the first. An output
            that cannot be written always stops: it fails every slide alike.
        workers: processes to work in, 0 for this one; ``work`` must be picklable for more.
        failures: table of the slides that failed (CSV), kept up to date while the run goes on;
            there is none when none failed.

    Raises:
        SlideError: a worker died at its slide (without ``keep_going``).
        ValueError: ``workers`` is negative.
    """
    from tqdm import tqdm

    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    failed: dict[int, Exception] = {}
    _list_failures(failures, rows, failed)
    outcomes = _in_workers(rows, work, workers) if workers else _here(rows, work)
    with (
        closing(outcomes),
        tqdm(total=len(rows), desc=what, unit="slide", disable=len(rows) < 2) as progress,
    ):
        for index, outcome in outcomes:
            if isinstance(outcome, str):
                tqdm.write(outcome)
            elif keep_going and not isinstance(outcome, OutputError):
                failed[index] = outcome
                _list_failures(failures, rows, failed)
                progress.set_postfix(failed=len(failed))
            else:
                raise outcome
            progress.update()
    if not failed:
        return 0
    print(f"{len(failed)} of {len(rows)} slides failed:")
    for index in sorted(failed):
        print(f"  {rows[index]['slide_id']}: {_message(failed[index])}")
    if failures is not None:
        print(f"listed in {failures}")
    return 3


def _here(rows: Sequence[Row], work: Work) -> Generator[Outcome]:
    for index, row in enumerate(rows):
        try:
            yield index, work(row)
        except Exception as error:
            yield index, error


def _in_workers(rows: Sequence[Row], work: Work, count: int) -> Generator[Outcome]:
    """Outcomes as they come."""
    context = multiprocessing.get_context("spawn")
    pickled = pickle.dumps(work)
    waiting = deque(enumerate(rows))
    workers: list[_Worker] = []

    def give(worker: _Worker | None) -> None:
        """The next slide to a worker, to a new one where it has died."""
        if worker is None or not worker.give(*waiting[0]):
            worker = _Worker(context, pickled)
            workers.append(worker)
            if not worker.give(*waiting[0]):
                worker.index = waiting[0][0]  # it died at once, which is this slide's outcome
        waiting.popleft()

    try:
        while waiting and len(workers) < count:
            give(None)
        while busy := [worker for worker in workers if worker.index is not None]:
            # A dead worker's pipe is at its end, which is something to be read, too.
            ready = wait([worker.pipe for worker in busy])
            for worker in (worker for worker in busy if worker.pipe in ready):
                yield worker.outcome(rows)
                if waiting:
                    give(worker)
            # One that has died with a slide still has to say so.
            workers = [w for w in workers if w.index is not None or w.process.is_alive()]
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.process.join(GRACE_S)
            worker.process.kill()


class _Worker:
    """A process that works on one slide at a time."""

    def __init__(self, context: SpawnContext, pickled: bytes) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, pickled), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.index: int | None = None

    def give(self, index: int, row: Row) -> bool:
        """Have it work on a row; false when it is no more."""
        try:
            self.pipe.send(row)
        except OSError:
            return False
        self.index = index
        return True

    def outcome(self, rows: Sequence[Row]) -> Outcome:
        """What became of its row."""
        assert self.index is not None
        index, self.index = self.index, None
        try:
            return index, self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.process.join()
            return index, SlideError(_death(self.process.exitcode or 0), rows[index]["path"])

    def stop(self) -> None:
        """Ask it to end: at once when it is at work."""
        if self.index is not None:
            self.process.terminate()
        self.pipe.close()


def serve(pipe: Connection, pickled: bytes) -> None:
    """A worker's life: rows in, lines or errors out, until the pipe ends."""
    # Before numpy is there: every worker has one core, as many as there are workers.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # drafts are removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Work = pickle.loads(pickled)
    while True:
        try:
            row = pipe.recv()
        except (EOFError, OSError):
            return
        outcome: str | Exception
        try:
            outcome = work(row)
        except Exception as error:
            outcome = _portable(error)
        try:
            pipe.send(outcome)
        except OSError:
            return


def _end_with_parent() -> None:
    """A worker whose parent was killed must not go on writing beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error in a form that survives being sent, with its traceback if nobody expected it."""
    if not _is_expected(error):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # whatever an exception's own constructor may say
        pass
    return PathologyError(_message(error))


def _is_expected(error: Exception) -> bool:
    return isinstance(error, PathologyError | BcosError | ValueError)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if _is_expected(error) else f"{type(error).__name__}: {text}"


def _death(code: int) -> str:
    """Why a worker died, by its exit code."""
    if code == -signal.SIGKILL:
        return (
            "the process that worked on it was killed, most often for want of memory; use fewer"
            " workers, or look at the slide"
        )
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"the process that worked on it ended {how}; the file may be damaged"


def _list_failures(path: Path | None, rows: Sequence[Row], failed: dict[int, Exception]) -> None:
    if path is None:
        return
    if not failed:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be replaced: {error.strerror}") from error
        return
    with complete_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("slide_id", "path", "error", "message"))
        for index in sorted(failed):
            names = (rows[index]["slide_id"], rows[index]["path"], type(failed[index]).__name__)
            writer.writerow((*names, _message(failed[index])))
