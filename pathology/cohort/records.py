"""What became of each slide: small files that outlive the runs that wrote them.

``OUT/.cohort/VERB/slides/SLIDE.json`` is there when a slide is done; with staging it is the commit,
written after the slide's files. ``OUT/.cohort/VERB/failed/SLIDE.json`` says why a slide failed. They
are apart so that a failure in one run never takes back what another has finished.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

FORMAT = 1
COHORT_FOLDER = ".cohort"
State = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a slide's results.

    Args:
        bytes: its size.
        sha256: of its content, in hexadecimal.
    """

    bytes: int
    sha256: str


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
        return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

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
        right = isinstance(file, dict) and set(file) == {"bytes", "sha256"}
        if not right or type(file["bytes"]) is not int or not isinstance(file["sha256"], str):
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
