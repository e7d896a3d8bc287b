"""Work whose files are here, on slides, tables and results that may be in stores by URL."""

import dataclasses
import hashlib
import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pathology.cohort.bench import Bench, Input, cell
from pathology.cohort.events import Row
from pathology.cohort.records import Record, StoredFile, now, record_name
from pathology.cohort.slide_files import seen_file
from pathology.cohort.worker import worker_name
from pathology.errors import OutputError
from pathology.store.store import Seen, Store, is_url

WAITS_S = (1.0, 4.0, 16.0, 64.0)
"""Longest waits before a slide is sent again that others were sending at the same time."""


@dataclass(frozen=True)
class Staged:
    """Does ``work`` for a slide, and leaves a record when it is done.

    A slide whose record says that it was made by the same settings of the same files is passed by
    without being read. In a store by URL the record is the last to be written, and a slide is done
    if its record is there; files without one are nobody's, and are written over. Before a file of a
    slide that was done is replaced, its record is removed.

    Two runs, or a worker that was believed dead, may write the same slide at the same time. Whoever
    ends looks whether all files are still those that it has sent, else sends all of them again.
    Where it is killed before that, the record is not of these files, and says nothing to the next.

    Args:
        work: a dataclass that is called with a row. It writes to the folder in its field ``out``.
        out: where results are kept.
        verb: whose records they are.
        ends: what the names of a slide's results add to its own, in the order in which they are
            written: ``.png``, ``.parquet``; ``/`` for all that is in a folder of its name.
        key: all that decides results besides the files that are read, as any text.
        inputs: by the field of ``work`` that names their folder.
        columns: of the rows that name further files that decide results; their cells may be empty.
        again: make everything anew, whatever records say.
        run: this run's name, for the records.
    """

    work: Any
    out: Store
    verb: str
    ends: tuple[str, ...]
    key: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    again: bool = False
    run: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a process."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def __call__(self, row: Row) -> str:
        """Do all that there is to do for a slide.

        Raises:
            OutputError: a store cannot be read or written.
            SlideError: the slide cannot be fetched.
            Exception: whatever the work says.
        """
        began = time.monotonic()
        name, path = str(row["slide_id"]), str(row["path"])
        source = self._source(row)
        main = self.out.where(f"{name}{self.ends[-1]}")
        before = self._record(name)
        if before and not self.again and self._answers(before, path, source):
            return f"{main}: made before with the same settings"
        bench = self._bench()
        with bench.used_for(row, self.columns) as words:
            kept = self._take(bench, before)
            try:
                line = words(bench.work(bench.fetched(row, self.columns)))
            except Exception as error:
                if bench.out is not self.out:
                    # What was found out is kept, too: why there is no tissue on a slide.
                    self._send(bench, name, kept)
                elif before and self._are_there(before.files):
                    # The work has refused to touch them: they are done as they were.
                    self.out.write(
                        record_name(self.verb, name), before.to_json(), only_if_absent=True
                    )
                error.args = tuple(words(a) if isinstance(a, str) else a for a in error.args)
                raise
            record = Record(
                name, path, "done", line, worker=worker_name(), run=self.run, work=self._digest,
                source=source,
            )  # fmt: skip
            # Another worker may have been given the slide when this one was slow.
            other = self._answer(record) if bench.out is not self.out and before is None else None
            other = other or self._commit(bench, record, kept, began)
        if other is not None:
            return f"{main}: made meanwhile by {other.worker} with the same settings"
        return line

    def _commit(
        self, bench: Bench, record: Record, kept: Mapping[str, StoredFile], began: float
    ) -> Record | None:
        """Have the store hold a slide's results and its record; another's, if that came first."""
        name = record.slide_id
        for wait_s in WAITS_S:
            files = self._send(bench, name, kept)
            if self._results(bench.out, name) == [*files]:  # none is just being replaced
                seconds = round(time.monotonic() - began, 3)
                done = replace(record, seconds=seconds, finished_at=now(), files=files)
                self.out.write(record_name(self.verb, name), done.to_json())
                if self._are_there(files):
                    return None
            time.sleep(wait_s * random.random())  # not in step with the other
            if other := self._answer(record):
                return other
            kept = {}  # all is sent
        raise OutputError(
            f"{self.out.where(record_name(self.verb, name))}: others keep writing the same slide;"
            " have one run at a time work on it"
        )

    def _answer(self, wanted: Record) -> Record | None:
        """The record that is there, if it is of the same."""
        found = self._record(wanted.slide_id)
        return found if found and self._answers(found, wanted.path, wanted.source) else None

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]

    def _source(self, row: Row) -> dict[str, str | int]:
        """What the files are that a slide's results depend on, as they are now."""
        path, name = str(row["path"]), str(row["slide_id"])
        source: dict[str, str | int] = {"mpp": cell(row, "mpp")}
        if seen := seen_file(path):
            source |= {"size": seen.bytes, "etag" if is_url(path) else "mtime_ns": seen.tag}
        for what, given in self.inputs.items():
            for end in given.ends:
                table = given.store.seen(f"{name}{end}")
                source[f"{what}{end}"] = f"{table.bytes} {table.tag}" if table else ""
        for column in self.columns:
            file = cell(row, column)
            read = seen_file(file) if file else None
            source[column] = f"{file} {read.bytes} {read.tag}" if read else file
        return source

    def _record(self, name: str) -> Record | None:
        """Of a slide that is done; a damaged one says nothing."""
        try:
            return Record.from_json(self.out.read(record_name(self.verb, name)))
        except (FileNotFoundError, ValueError):
            return None

    def _answers(self, record: Record, path: str, source: Mapping[str, str | int]) -> bool:
        """Whether a record is of what is asked for, and its files are those that are there."""
        asked = (self._digest, path, source)
        done = (record.work, record.path, record.source)
        return done == asked and bool(record.files) and self._are_there(record.files)

    def _are_there(self, files: Mapping[str, StoredFile]) -> bool:
        """Whether files are those that were sent, and nobody has written them since."""
        seen = ((self.out.seen(name), file) for name, file in files.items())
        return all(now == Seen(file.bytes, file.tag) for now, file in seen)

    def _take(self, bench: Bench, before: Record | None) -> Mapping[str, StoredFile]:
        """Have a done slide's files here, for the work to decide what to do with them."""
        if before is None:
            return {}
        if bench.out is self.out:
            # From now on its files may be others.
            self.out.remove(record_name(self.verb, before.slide_id))
            return {}
        kept = {}
        for name in before.files:
            seen = self.out.seen(name)  # before: what changes meanwhile has another tag
            with suppress(FileNotFoundError):
                self.out.get(name, bench.out.folder / name)
                kept[name] = _digest_of(bench.out.folder / name, seen)
        if kept.items() <= before.files.items():
            return kept
        # Not what the record says, perhaps a mixture of two runs: all is made anew.
        self.out.remove(record_name(self.verb, before.slide_id))
        for name in kept:
            bench.out.remove(name)
        return {}

    def _send(
        self, bench: Bench, name: str, kept: Mapping[str, StoredFile]
    ) -> dict[str, StoredFile]:
        """Have the store hold a slide's results, and say which they are."""
        files = {}
        for each in self._results(bench.out, name):
            seen = bench.out.seen(each)
            with suppress(FileNotFoundError):  # just being replaced, on a disk that runs share
                files[each] = _digest_of(bench.out.folder / each, seen)
        if bench.out is self.out:
            return files
        if files == kept:
            return dict(kept)
        if kept:
            self.out.remove(record_name(self.verb, name))
        for each, file in files.items():
            if kept.get(each) == file:
                files[each] = kept[each]
                continue
            self.out.put(bench.out.folder / each, each)
            sent = self.out.seen(each)
            files[each] = replace(file, tag=sent.tag if sent else "")
        for each in kept:
            if each not in files:
                self.out.remove(each)
        return files

    def _results(self, out: Store, name: str) -> list[str]:
        """A slide's files that are there, in the order of their ends."""
        found: list[str] = []
        for end in self.ends:
            one = f"{name}{end}"
            found += out.names(one) if end == "/" else [one] if out.exists(one) else []
        return found

    def _bench(self) -> Bench:
        """This process's; a forked one has another."""
        made: tuple[int, Bench] | None = self.__dict__.get("_made")
        if made is None or made[0] != os.getpid():
            made = self.__dict__["_made"] = os.getpid(), Bench(self.work, self.out, self.inputs)
        return made[1]


def _digest_of(file: Path, seen: Seen | None) -> StoredFile:
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            return StoredFile(content.tell(), digest, seen.tag if seen else "")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OutputError(f"{file}: cannot be read again: {error.strerror}") from error
