"""One training at a time in a run's folder."""

import errno
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from pathology.errors import OutputError
from pathology.tasks.checkpoint import Run


@contextmanager
def alone_in(run: Run) -> Iterator[None]:
    """Nobody else trains in the folder while the block runs, also on a file system that is shared.

    The system lets go of the lock however the process ends; reading processes do not inherit it.

    Raises:
        OutputError: somebody else does.
    """
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:  # Windows
        yield
        return
    with (run.folder / ".lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise OutputError(
                    f"{run.folder}: another process is training in it; wait for its end, or choose"
                    " another --out"
                ) from error
            # A file system without locks.
        yield
