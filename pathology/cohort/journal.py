"""What happened in a run, line by line: ``OUT/.cohort/VERB/runs/RUN.jsonl``.

Every line is a JSON object with ``time`` (UTC, ISO 8601) and ``event``, and with:

========= =====================================================================================
began     ``run, verb, what, slides`` of the table, ``done_before`` of them, ``part``; ``host``,
          ``process`` and ``version`` of bcos-pathology
started   ``slide, worker, tries`` (with this one)
lost      ``slide, worker, tries, message``: the worker died, the slide is tried again
done      ``slide, worker, seconds`` of the last try, ``tries, tiles, waited_s, message``
failed    the same with ``error``, the class of what went wrong
damaged   ``name, message``: a record that cannot be read, which is as none
ended     ``seconds`` of the run, ``done, failed, tiles, waited_s, losses, tries``, and ``error``
          and ``message`` of what stopped it, empty where nothing did
========= =====================================================================================

``waited_s`` are seconds that a model, or whatever uses tiles, waited for them to be read. Lines are
only ever added. Where a run is killed, the last one may be cut short and ``ended`` is missing.
"""

import json
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pathology.cohort.records import COHORT_FOLDER, now
from pathology.errors import OutputError

if TYPE_CHECKING:
    from pathology.store.store import Store

UPLOAD_S = 60.0
"""Stores by URL cannot add to a file: so often all of it is written again."""


def run_name() -> str:
    """A name that no other run has, and that sorts by time: ``20260301T120000Z-node3-5f2a9c``."""
    host = "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{host}-{secrets.token_hex(3)}"


class Journal:
    """A run's events as JSON lines, each of them on disk when the call returns.

    In a store by URL the file is as of a minute ago at most, and complete when it is closed.

    Args:
        store: of the results.
        verb: of the command.
        run: its name.

    Raises:
        OutputError: it cannot be written; so do all calls.
    """

    def __init__(self, store: "Store", verb: str, run: str) -> None:
        self.name = f"{COHORT_FOLDER}/{verb}/runs/{run}.jsonl"
        self._store = store
        self._uploaded = time.monotonic()
        self._lock = threading.Lock()  # one thread writes, another uploads
        with self._in_one_line():
            self._file = self._open()

    def _open(self) -> IO[bytes]:
        if not self._store.is_local:
            return tempfile.TemporaryFile()
        path: Path = self._store.folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")

    def write(self, event: str, **values: Any) -> None:
        """Add a line."""
        line = json.dumps({"time": now(), "event": event, **values})
        with self._lock, self._in_one_line():
            self._file.write(line.encode() + b"\n")
            self._file.flush()

    def upload(self, at_once: bool = False) -> None:
        """Bring a store by URL up to date, when it is time; for folders there is nothing to do."""
        if self._store.is_local or not (at_once or time.monotonic() > self._uploaded + UPLOAD_S):
            return
        self._uploaded = time.monotonic()
        with self._lock, self._in_one_line():
            self._file.seek(0)
            lines = self._file.read()  # which ends where the next line goes
        self._store.write(self.name, lines)

    def close(self) -> None:
        """No more lines."""
        try:
            self.upload(at_once=True)
        finally:
            with self._in_one_line():
                self._file.close()

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self._store.where(self.name)
            raise OutputError(f"{where}: cannot be written: {error.strerror or error}") from error
