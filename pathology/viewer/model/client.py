"""The viewer's side of asking a model: a queue of questions, and the answers found last."""

import itertools
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pathology.errors import PathologyError
from pathology.runs.encoder_choice import EncoderChoice
from pathology.viewer.model.process import WorkerProcess
from pathology.viewer.model.question import (
    Answer,
    Explained,
    Job,
    MaskQuestion,
    Means,
    Report,
    TileQuestion,
)
from pathology.viewer.model.weights import check_runs, digest_of, wanted

MOST_WAITING = 32
"""Questions in the queue: more are of nobody who waits for the answers."""
MOST_KNOWN = 128
"""Jobs that are remembered; a region of theirs may take megabytes."""
ANSWER_BYTES = 256 * 2**20
"""Of all answers that are kept."""

State = Literal["queued", "running", "done", "failed", "cancelled"]


class UnavailableError(PathologyError):
    """There is no model to ask, or no time for a further question."""


class UnknownJobError(PathologyError, LookupError):
    """No job is known under an id, or its answer is no longer kept."""


@dataclass
class JobState:
    """A question, and how far it is.

    Args:
        id: what requests name it by.
        evidence: whose explanation is asked about, for whoever asks again.
        job: what the worker is sent.
        state: how far it is.
        done, total: batches, while it runs.
        what: is being done.
        answer: once it is found, as long as it is kept.
        error: one line, once it failed.
        askers: how many asked, less those who gave it up.
    """

    id: str
    evidence: str
    job: Job
    state: State = "queued"
    done: int = 0
    total: int = 0
    what: str = "waiting"
    answer: Answer | None = None
    error: str | None = None
    askers: int = 1

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; the result is an object once it is done."""
        return {
            "id": self.id,
            "evidence": self.evidence,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "what": self.what,
            "result": None if self.answer is None else dict(self.answer.result),
            "error": self.error,
        }


class ModelClient:
    """Asks the runs that explanations were made with, one question at a time.

    ::

        model = ModelClient([Path("runs/cnn"), Path("runs/vit")])
        model.check(entry.folder for entry in library.evidence)  # a run that is of none of them
        app = make_app(library, model)
        ...
        model.close()

    Nothing is loaded here: which run an explanation was made with is told by the hash of its
    weights, and the first question starts the process that loads it.

    Args:
        runs: folders of trained runs, or checkpoints.
        device: where models compute: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        encoder: for runs on slides, what made their features.
        stains: folder of the slides' stain profiles, for runs trained on normalised tiles; the
            run's own when omitted.

    Raises:
        ManifestError: there is no such run.
        ValueError: no runs.
    """

    def __init__(
        self,
        runs: Sequence[str | Path],
        device: str = "auto",
        encoder: EncoderChoice | None = None,
        stains: Path | None = None,
    ) -> None:
        if not runs:
            raise ValueError("runs must name one at least")
        self.means = Means({digest_of(run): str(run) for run in runs}, device, encoder, stains)
        self._folder = Path.cwd()  # where paths are of, wherever a notebook goes later
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._jobs: OrderedDict[str, JobState] = OrderedDict()
        self._waiting: deque[JobState] = deque()
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._at_work: JobState | None = None
        self._worker: WorkerProcess | None = None
        self._problem: str | None = None
        self._closed = False

    def check(self, folders: Iterable[Path]) -> None:
        """Refuse a run that made none of the explanations in ``folders``.

        Raises:
            StampMismatchError: naming the weights of both.
        """
        check_runs(self.means.runs, folders)

    def missing(self, record: Mapping[str, Any]) -> list[str]:
        """The weights that an explanation was made with and no run has; none where it can be asked.

        Args:
            record: of the explanation.
        """
        return [digest for digest in wanted(record) if digest not in self.means.runs]

    @property
    def state(self) -> str:
        """``"not loaded"``, ``"ready"`` or ``"working"``."""
        if self._at_work is not None:
            return "working"
        return "not loaded" if self._worker is None else "ready"

    @property
    def problem(self) -> str | None:
        """How the last process ended, if it did by itself."""
        return self._problem

    @property
    def pid(self) -> int | None:
        """Of the worker, while there is one."""
        worker = self._worker
        return None if worker is None else worker.pid

    def ask(
        self,
        evidence: str,
        explained: Explained,
        record: Mapping[str, Any],
        question: TileQuestion | MaskQuestion,
    ) -> JobState:
        """Put a question in the queue; one that was asked before and is not lost is that job.

        Args:
            evidence: id of the explanation.
            explained: where it is.
            record: its own.
            question: what is asked.

        Raises:
            UnavailableError: no run has its weights, too many questions wait, or it is closed.
        """
        if lacking := self.missing(record):
            runs = ", ".join(f"{run} ({digest})" for digest, run in self.means.runs.items())
            raise UnavailableError(
                f"the explanation was made with the weights {', '.join(lacking)}, the viewer was"
                f" given {runs}; start it with --run and the run that was explained"
            )
        with self._lock:
            if self._closed:
                raise UnavailableError("the viewer is closing")
            for known in reversed(self._jobs.values()):
                is_same = (known.job.explained, known.job.question) == (explained, question)
                if is_same and (not known.is_over or known.answer is not None):
                    known.askers += 1
                    return known
            if len(self._waiting) >= MOST_WAITING:
                raise UnavailableError(
                    f"{MOST_WAITING} questions are waiting for the model; cancel some first"
                )
            job = Job(next(self._numbers), explained, question, self.means)
            state = JobState(secrets.token_hex(8), evidence, job)
            self._jobs[state.id] = state
            self._waiting.append(state)
            self._forget()
            self._next()
            return state

    def job(self, job: str) -> JobState:
        """A job by its id.

        Raises:
            UnknownJobError: there is none, or it is forgotten.
        """
        with self._lock:
            try:
                return self._jobs[job]
            except KeyError:
                raise UnknownJobError(f"no question {job!r}; ask it again") from None

    def part(self, job: str, name: str) -> bytes:
        """A picture or array of an answer.

        Raises:
            UnknownJobError: there is none of this name, or it is no longer kept.
        """
        answer = self.job(job).answer
        if answer is None or name not in answer.parts:
            raise UnknownJobError(f"question {job!r} has no answer {name!r} (any more)")
        return answer.parts[name]

    def cancel(self, job: str) -> JobState:
        """Give a question up; one that is over stays as it is, one that others asked too goes on.

        Raises:
            UnknownJobError: there is none of this id.
        """
        with self._lock:
            state = self.job(job)
            state.askers -= 1
            if state.askers > 0:
                return state
            if state.state == "queued":
                self._waiting.remove(state)
            elif state.state == "running" and self._worker is not None:
                self._worker.cancel(state.job.number)
            if not state.is_over:
                state.state, state.what = "cancelled", ""
            return state

    def close(self) -> None:
        """End the worker; what is not answered never will be."""
        with self._lock:
            self._closed = True
            worker = self._worker
            for state in (*self._waiting, *([self._at_work] if self._at_work else [])):
                state.state = "cancelled"
            self._waiting.clear()
        if worker is not None:
            worker.close()

    def _next(self) -> None:
        """Send the worker the next question, if it has none."""
        if self._at_work is not None or not self._waiting or self._closed:
            return
        if self._worker is None:
            try:
                self._worker = WorkerProcess(self._heard, self._ended, self._folder)
            except OSError as error:  # no memory, or too many processes
                self._problem = f"the model's process cannot be started: {error.strerror}"
                for state in self._waiting:
                    state.state, state.error, state.what = "failed", self._problem, ""
                self._waiting.clear()
                return
            self._problem = None
        self._at_work = state = self._waiting.popleft()
        state.state, state.what = "running", "starting"
        self._worker.send(state.job)

    def _heard(self, report: Report) -> None:
        with self._lock:
            state = self._at_work
            if state is None or state.job.number != report.number:
                return
            if not state.is_over:
                if report.answer is not None:
                    state.state, state.answer, state.what = "done", report.answer, ""
                    self._keep(state)
                elif report.error is not None:
                    state.state, state.error, state.what = "failed", report.error, ""
                else:
                    state.done, state.total, state.what = report.done, report.total, report.what
            if report.is_last:
                self._at_work = None
                self._next()

    def _ended(self, how: str) -> None:
        with self._lock:
            self._worker = None
            state, self._at_work = self._at_work, None
            if self._closed:
                return
            self._problem = how
            if state is not None and not state.is_over:
                state.state, state.what = "failed", ""
                state.error = f"{how}; ask again, which starts a new one"
            self._next()

    def _keep(self, state: JobState) -> None:
        """Keep an answer, and let go of those found longest ago."""
        assert state.answer is not None
        self._kept[state.id] = state.answer.nbytes
        while len(self._kept) > 1 and sum(self._kept.values()) > ANSWER_BYTES:
            oldest, _ = self._kept.popitem(last=False)
            if oldest in self._jobs:
                self._drop(self._jobs[oldest])

    def _drop(self, state: JobState) -> None:
        state.state, state.answer = "failed", None
        state.error = "the answer is no longer kept; ask again"

    def _forget(self) -> None:
        """Forget the jobs that are over longest."""
        for job in [job for job, state in self._jobs.items() if state.is_over]:
            if len(self._jobs) <= MOST_KNOWN:
                return
            del self._jobs[job]
            self._kept.pop(job, None)
