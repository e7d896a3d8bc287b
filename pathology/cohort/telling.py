"""All that is told of a run: to people at once, in files for later, and to monitors.

Where results are kept, ``OUT/.cohort/VERB/`` holds records of slides, journals of runs and numbers
for Prometheus, see :mod:`~pathology.cohort.records`, :mod:`~pathology.cohort.journal` and
:mod:`~pathology.cohort.meters`; ``OUT/cohort.csv`` is what they come to, for people.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import bcos_vit
from pathology.cohort.cohort_table import COHORT_TABLE, cohort_table
from pathology.cohort.events import Ended, Event, Lost, Row, Started
from pathology.cohort.failures import message
from pathology.cohort.journal import Journal, run_name
from pathology.cohort.meters import exposition, metrics_name
from pathology.cohort.parts import parse_part
from pathology.cohort.progress import Progress
from pathology.cohort.records import Record, Records, now
from pathology.cohort.tally import Tally
from pathology.errors import OutputError

if TYPE_CHECKING:
    from pathology.store.store import Store

SHOW_S = 1.0
METERS_S = 15.0


class Telling:
    """Is told the events of a run, while its block runs.

    Args:
        store: of the results; ``None`` where nothing but the progress is told.
        verb: of the command: names the folder.
        rows: slides of this run.
        what: is done, shown beside the progress.
        cohort: all slides, where ``rows`` are a part of them.
        part: of the cohort, such as ``3/16``, where it is one.
        staged: work itself writes records of slides that are done, as commits.
        run: its name, see :func:`~pathology.cohort.journal.run_name`; a new one when omitted.

    Raises:
        OutputError: journal, records, numbers or table cannot be written; from all that it does,
            except that what stops a run already is not hidden by it.
    """

    def __init__(
        self,
        store: "Store | None",
        verb: str,
        rows: Sequence[Row],
        what: str,
        *,
        cohort: Sequence[Row] | None = None,
        part: str | None = None,
        staged: bool = True,
        run: str | None = None,
    ) -> None:
        self.run = run or run_name()
        self._store, self._verb, self._what = store, verb, what
        self._rows, self._cohort, self._part = rows, rows if cohort is None else cohort, part
        self._staged = staged
        self._tries: dict[str, int] = {}
        self._trouble: OutputError | None = None
        self._lock = threading.Lock()  # of what the thread below reads
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, daemon=True)

    def __enter__(self) -> Self:
        done: set[str] = set()
        self._files: _Files | None = None
        if self._store is not None:
            records = Records(self._store, self._verb)
            done, self._failed_before = records.names("done"), records.names("failed")
            self._files = _Files(self._store, self._verb, self.run, self._part)
        self._tally = Tally(self._rows, done)
        if self._files is not None:
            try:
                self._begin(self._files, done)
            except BaseException:
                with suppress(OutputError):
                    self._files.journal.close()
                raise
        self._progress = Progress(self._what, self._tally)
        self._thread.start()
        return self

    def _begin(self, files: "_Files", done: set[str]) -> None:
        files.journal.write(
            "began",
            run=self.run,
            verb=self._verb,
            what=self._what,
            slides=len(self._rows),
            done_before=len(done.intersection(str(row["slide_id"]) for row in self._rows)),
            part=self._part or "",
            host=socket.gethostname(),
            process=os.getpid(),
            version=bcos_vit.__version__,
        )
        files.write_meters(self._tally)

    def told(self, event: Event) -> None:
        """One event after the other."""
        if self._trouble is not None:
            raise self._trouble
        with self._lock:
            tiles, waited_s = self._tally.of_try(event.index, event.worker)
            self._tally.take(event)
        if isinstance(event, Ended):
            self._ended(event, tiles, waited_s)
        elif isinstance(event, Started):
            self._write("started", **self._names(event), tries=event.tries)
        elif isinstance(event, Lost):
            self._write("lost", **self._names(event), tries=event.tries, message=event.why)
            self._say(f"{self._rows[event.index]['path']}: {event.why}; it will be tried again")

    def _ended(self, event: Ended, tiles: int, waited_s: float) -> None:
        done = isinstance(event.result, str)
        text = event.result if isinstance(event.result, str) else message(event.result)
        error = "" if done else type(event.result).__name__
        about: dict[str, Any] = {"seconds": round(event.seconds, 3), "tries": event.tries}
        about |= {"tiles": tiles, "waited_s": round(waited_s, 3), "message": text}
        about |= {} if done else {"error": error}
        if isinstance(event.result, OutputError):
            # It fails every slide alike and is about to stop the run, maybe by a disk that is full.
            with suppress(OutputError):
                self._write("failed", **self._names(event), **about)
            return
        self._write("done" if done else "failed", **self._names(event), **about)
        if self._files is not None:
            self._record(event, text, error, self._files.records)
        if done:
            self._say(text)

    def _record(self, event: Ended, text: str, error: str, records: Records) -> None:
        row = self._rows[event.index]
        name = str(row["slide_id"])
        self._tries[name] = event.tries
        if not error and name in self._failed_before:
            records.forget_failure(name)
        if error or not self._staged:
            records.write(
                Record(
                    slide_id=name,
                    path=str(row["path"]),
                    state="failed" if error else "done",
                    message=text,
                    error=error,
                    seconds=event.seconds,
                    tries=event.tries,
                    worker=event.worker,
                    run=self.run,
                    finished_at=now(),
                )
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._progress.close()
        stopped_by = error if error is not None else self._trouble
        if self._files is not None:
            try:
                self._close(self._files, stopped_by)
            except OutputError:
                if stopped_by is None:
                    raise
        if error is None and self._trouble is not None:
            raise self._trouble

    def _close(self, files: "_Files", error: BaseException | None) -> None:
        tally = self._tally
        try:
            self._write_table(files)
            self._write(
                "ended",
                seconds=round(tally.seconds, 3),
                done=tally.done,
                failed=tally.failed,
                tiles=tally.tiles,
                waited_s=round(tally.waited_s, 3),
                losses=tally.losses,
                tries=tally.tries,
                error="" if error is None else type(error).__name__,
                message=message(error) if isinstance(error, Exception) else "",
            )
            files.write_meters(tally, ended_s=time.time())
        finally:
            files.journal.close()

    def _write_table(self, files: "_Files") -> None:
        def damaged(name: str, why: str) -> None:
            self._write("damaged", name=name, message=why)

        records = files.records.all(damaged)
        for name, tries in self._tries.items():
            # Who writes a record as a commit does not know how often others died at the slide.
            if name in records and records[name].run == self.run:
                records[name] = replace(records[name], tries=tries)
        text = cohort_table(self._cohort, records)
        # Names of files need be no text; the records have them exactly.
        files.store.write(COHORT_TABLE, text.encode(errors="backslashreplace"))
        if len(self._cohort) > 1:
            states = [record.state for record in records.values()]
            waiting = sum(str(row["slide_id"]) not in records for row in self._cohort)
            self._say(
                f"{files.store.where(COHORT_TABLE)}: {states.count('done'):,} done,"
                f" {states.count('failed'):,} failed, {waiting:,} waiting"
            )

    def _keep_telling(self) -> None:
        """Also while no event comes: slides may take hours."""
        next_meters = time.monotonic() + METERS_S
        while not self._over.wait(SHOW_S):
            with self._lock:
                self._progress.show()
            if self._files is None:
                continue
            try:
                self._files.journal.upload()
                if time.monotonic() >= next_meters:
                    next_meters = time.monotonic() + METERS_S
                    with self._lock:
                        text = self._files.meters(self._tally)
                    self._files.write(text)
            except OutputError as error:
                self._trouble = error
                return

    def _names(self, event: Event) -> dict[str, str]:
        return {"slide": str(self._rows[event.index]["slide_id"]), "worker": event.worker}

    def _write(self, event: str, **values: Any) -> None:
        if self._files is not None:
            self._files.journal.write(event, **values)

    def _say(self, line: str) -> None:
        with self._lock:
            self._progress.say(line)


class _Files:
    """What a run writes about itself."""

    def __init__(self, store: "Store", verb: str, run: str, part: str | None) -> None:
        which, of = parse_part(part)
        self.store = store
        self.records = Records(store, verb)
        self.journal = Journal(store, verb, run)
        self._verb, self._run = verb, run
        self._metrics = metrics_name(verb, f"-{which}-of-{of}" if part else "")
        self._began_s = time.time()

    def meters(self, tally: Tally, ended_s: float | None = None) -> str:
        return exposition(tally, self._verb, self._run, self._began_s, ended_s)

    def write(self, meters: str) -> None:
        self.store.write(self._metrics, meters.encode())

    def write_meters(self, tally: Tally, ended_s: float | None = None) -> None:
        self.write(self.meters(tally, ended_s))
