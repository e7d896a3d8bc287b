"""Accidents of workers, asked for by files, and what is seen of them.

``FAULTS/SLIDE.kill`` has the first worker that comes to the middle of the slide killed, and so on;
whoever takes the file has the accident, so that it happens once (``always-...``: each time).
"""

import os
import resource
import signal
import time
from pathlib import Path

PATIENCE_S = 300  # on the busiest of machines


def note(faults: Path, what: str, slide: str) -> None:
    """Add a slide, and this process, to the list ``FAULTS/WHAT``."""
    with (faults / what).open("a") as file:
        file.write(f"{slide} {os.getpid()}\n")


def notes(faults: Path, what: str) -> list[str]:
    """The slides of a list, in that order."""
    path = faults / what
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def stumble(faults: Path, slide: str) -> None:
    """Have whatever accident there is to be in the middle of a slide."""
    for how, accident in ACCIDENTS.items():
        fault = faults / f"{slide}.{how}"
        if not fault.exists():
            continue
        if not how.startswith("always-"):
            try:
                fault.unlink()
            except FileNotFoundError:  # another worker had it
                continue
        accident(faults, slide)


def _kill(_faults: Path, _slide: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wait(faults: Path, slide: str) -> None:
    """Until the test says go, or has killed this process."""
    (faults / f"{slide}.{os.getpid()}.waits").touch()
    deadline = time.monotonic() + PATIENCE_S
    while not (faults / "go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{slide}: nobody said go")
        time.sleep(0.02)


def _sleep(faults: Path, slide: str) -> None:
    """Longer than any test runs."""
    (faults / f"{slide}.{os.getpid()}.sleeps").touch()
    while True:
        time.sleep(0.02)


def _memory(_faults: Path, _slide: str) -> None:
    """No more memory than is in use; that is over when the slide is given up."""
    former = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), former[1]))
    try:
        bytearray(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, former)


def _disk(_faults: Path, _slide: str) -> None:
    """No file of this process grows beyond what half a result takes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, resource.RLIM_INFINITY))


ACCIDENTS = {
    "kill": _kill, "always-kill": _kill, "wait": _wait, "always-wait": _wait, "sleep": _sleep,
    "memory": _memory, "disk": _disk,
}  # fmt: skip


def waiting(faults: Path, count: int = 1, how: str = "waits") -> list[int]:
    """The processes that wait in the middle of a slide, once there are as many."""
    deadline = time.monotonic() + PATIENCE_S
    while len(found := list(faults.glob(f"*.{how}"))) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} workers came to wait"
        time.sleep(0.02)
    return [int(path.name.split(".")[-2]) for path in found]


def gone(process: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def wait_until_gone(processes: list[int], count: int | None = None) -> None:
    """Wait for the end of processes, all or so many."""
    deadline = time.monotonic() + PATIENCE_S
    while sum(map(gone, processes)) < (len(processes) if count is None else count):
        assert time.monotonic() < deadline, f"{processes} go on"
        time.sleep(0.02)
