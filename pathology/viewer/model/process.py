"""The worker as its own process: started, sent jobs, listened to, and never left behind."""

import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pathology.viewer.model.question import Job, Report

PROGRAM = """
import sys
sys.path[:] = {path!r}
from pathology.viewer.model.worker.loop import main
main()
"""
"""Finds what the viewer finds; the folder that one stands in is looked at only if that does."""
GRACE_S = 2.0
"""From being asked to end to being killed."""


class WorkerProcess:
    """A process that answers questions, one after another.

    It has a session of its own, so Ctrl-C in the viewer's terminal does not reach it; and it ends
    when the pipe to it closes, so it outlives no viewer, however that ends.

    Args:
        heard: called with each report, by a thread.
        ended: called once, by the same thread, with one line of how it ended.
        folder: that relative paths are of.
    """

    def __init__(
        self, heard: Callable[[Report], None], ended: Callable[[str], None], folder: Path
    ) -> None:
        self._heard, self._ended = heard, ended
        self._said: deque[str] = deque(maxlen=20)
        self._writing = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=folder,
        )
        self._talk = threading.Thread(target=self._read_errors, daemon=True)
        self._talk.start()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, job: Job) -> None:
        """Have a job done. If the process is gone, ``ended`` says so."""
        self._send(job)

    def cancel(self, number: int) -> None:
        """Have a job given up, at its next batch."""
        self._send(number)

    def close(self) -> None:
        """End it, and wait until it has."""
        self._hang_up()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        with self._writing, suppress(OSError):
            self._process.stdin.close()

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        with self._writing, suppress(OSError, ValueError):  # ValueError: closed
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Hand over what it says, until it says no more."""
        assert self._process.stdout is not None
        with self._process.stdout as pipe, suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                self._heard(pickle.load(pipe))
        code = self._process.wait()
        self._hang_up()
        self._talk.join(GRACE_S)
        self._ended(self._how(code))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            for line in pipe:
                self._said.append(line.decode(errors="replace").rstrip())
                if sys.stderr is not None:  # what a fault is about is told nowhere else
                    print(self._said[-1], file=sys.stderr)

    def _how(self, code: int) -> str:
        if code < 0:
            known = -code in {each.value for each in signal.Signals}
            name = signal.Signals(-code).name if known else f"signal {-code}"
            hint = " (perhaps for want of memory)" if name == "SIGKILL" else ""
            return f"the model's process was ended by {name}{hint}"
        last = next((line for line in reversed(self._said) if line.strip()), "")
        return f"the model's process ended with code {code}" + (f": {last}" if last else "")
