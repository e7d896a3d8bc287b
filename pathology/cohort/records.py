"""What became of each slide: small files that outlive the runs that wrote them.

``OUT/.cohort/VERB/slides/SLIDE.json`` is there when a slide is done; with staging it is the
commit, written after the slide's files. ``OUT/.cohort/VERB/failed/SLIDE.json`` says why a slide
failed. They are apart so that a failure in one run never takes back what another has finished.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathology.store.store import Store

FORMAT = 1
COHORT_FOLDER = ".cohort"
State = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a slide's results.

    Args:
        bytes: its size.
        sha256: of its content, in hexadecimal.
        tag: the store's, another one whenever the file is written anew, be it with the same.
    """

    bytes: int
    sha256: str
    tag: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a slide.

    Args:
        slide_id: its name.
        path: where it was read, a path or a URL, as the table of slides says it.
        state: ``done`` or ``failed``.
        message: the line about it, or what went wrong.
        error: the class of what went wrong, empty when done.
        seconds: of the last try.
        tries: how often it was begun.
        worker: name of the process that worked on it last.
        run: name of the run.
        finished_at: when, UTC, as ISO 8601; see :func:`now`.
        work: digest of what was asked for, empty where nobody compares it.
        source: what the slide's file was: ``size`` in bytes, and ``mtime_ns`` or ``etag``.
        files: results by name within OUT, empty where nobody counted them.
    """

    slide_id: str
    path: str
    state: State
    message: str = ""
    error: str = ""
    seconds: float = 0.0
    tries: int = 1
    worker: str = ""
    run: str = ""
    finished_at: str = ""
    work: str = ""
    source: Mapping[str, str | int] = field(default_factory=dict)
    files: Mapping[str, StoredFile] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As a small file."""
        values = {"format": FORMAT, **asdict(self)}
        return (json.dumps(values, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Record":
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: it is damaged, or of another format; in one line.
        """
        try:
            values = json.loads(data)
        except ValueError as error:  # of JSON or of UTF-8
            raise ValueError(f"is no JSON ({error})") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"is no record of format {FORMAT}")
        _check(values)
        values["files"] = {name: StoredFile(**file) for name, file in values["files"].items()}
        return cls(**values)


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(
        ("slide_id", "path", "state", "message", "error", "worker", "run", "finished_at", "work"),
        str,
    ),
    "seconds": (int, float),
    "tries": int,
    "source": dict,
    "files": dict,
}


def _check(values: dict[str, Any]) -> None:
    if set(values) != set(_TYPES):
        odd = sorted(set(values) ^ set(_TYPES))
        raise ValueError(f"has other fields than a record: {', '.join(map(str, odd))}")
    for name, wanted in _TYPES.items():
        if not isinstance(values[name], wanted) or isinstance(values[name], bool):
            raise ValueError(f"{name} is {values[name]!r}")
    if values["state"] not in ("done", "failed"):
        raise ValueError(f"state is {values['state']!r}")
    for name, file in values["files"].items():
        types = {k: type(v) for k, v in file.items()} if isinstance(file, dict) else {}
        if types != {"bytes": int, "sha256": str, "tag": str}:
            raise ValueError(f"files: {name!r} has {file!r}")


def record_name(verb: str, slide_id: str, state: State = "done") -> str:
    """Where a slide's record is, from OUT: ``.cohort/tile/slides/s1.json``."""
    return f"{records_prefix(verb, state)}{slide_id}.json"


def records_prefix(verb: str, state: State = "done") -> str:
    """What the names of all records of a verb begin with: ``.cohort/tile/slides/``."""
    return f"{COHORT_FOLDER}/{verb}/{'slides' if state == 'done' else 'failed'}/"


def now() -> str:
    """The time in UTC, as files say it: ``2026-03-01T12:00:00.123Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Records:
    """The records of a verb's slides in a store.

    Args:
        store: of the results.
        verb: of the command.
    """

    def __init__(self, store: "Store", verb: str) -> None:
        self._store, self._verb = store, verb

    def write(self, record: Record) -> None:
        """Put it there, in the place of an earlier one of the same state.

        Raises:
            OutputError: it cannot be written.
        """
        self._store.write(record_name(self._verb, record.slide_id, record.state), record.to_json())

    def forget_failure(self, slide_id: str) -> None:
        """The slide has not failed any more.

        Raises:
            OutputError: the record cannot be removed.
        """
        self._store.remove(record_name(self._verb, slide_id, "failed"))

    def names(self, state: State) -> set[str]:
        """The ``slide_id`` of all records of a state, without reading them.

        Raises:
            OutputError: the store cannot be asked.
        """
        prefix = records_prefix(self._verb, state)
        found = self._store.names(prefix, deep=False)
        return {name[len(prefix) : -len(".json")] for name in found if name.endswith(".json")}

    def all(self, damaged: Callable[[str, str], None]) -> dict[str, Record]:
        """The newer record of every slide that has any, by ``slide_id``.

        Args:
            damaged: is told the names of those that cannot be read, and why; they are as none.

        Raises:
            OutputError: the store cannot be read.
        """
        found: dict[str, Record] = {}
        states: tuple[State, ...] = ("done", "failed")
        for state in states:
            names = [record_name(self._verb, slide, state) for slide in sorted(self.names(state))]
            for name, data in self._store.read_all(names).items():
                try:
                    record = Record.from_json(data)
                    if record_name(self._verb, record.slide_id, record.state) != name:
                        raise ValueError(f"is of slide {record.slide_id!r}, {record.state}")
                except ValueError as error:
                    damaged(name, str(error))
                    continue
                other = found.get(record.slide_id)
                if other is None or record.finished_at >= other.finished_at:
                    found[record.slide_id] = record
        return found
