"""What is alike in all processes that work on slides, on this machine and on others."""

import os
import socket

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def worker_name(process: int | None = None) -> str:
    """``node3:4711``: a process of this machine, this one when omitted."""
    return f"{socket.gethostname()}:{os.getpid() if process is None else process}"


def take_one_core() -> None:
    """Have libraries that are loaded from now on compute in one thread.

    A machine has as many workers as it has cores; and sums that are parted among other numbers of
    threads may be rounded otherwise. What the user has set stays.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")
