"""Work on tiny slides that meets with what a file asks for: imported by worker processes.

``FAULTS/SLIDE.kill`` has the first worker that comes to the middle of the slide killed, and so on;
whoever takes the file has the accident, so that it happens once.
"""

import os
import resource
import signal
import time
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path
from typing import Any

from pathology.cohort.counting import count
from pathology.errors import SlideOpenError
from pathology.outputs import complete_file

MAGIC = b"slide"
TILES = 8  # of each slide
USUAL_S = 0.04  # that a slide takes
PATIENCE_S = 300  # on the busiest of machines


def write_slides(folder: Path, names: list[str]) -> list[dict[str, Any]]:
    """Small files that :class:`Halves` takes for slides; their rows of a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.tif").write_bytes(MAGIC + name.encode())
    return [{"slide_id": name, "path": str(folder / f"{name}.tif")} for name in names]


@dataclass(frozen=True)
class Halves:
    """Writes OUT/SLIDE.bin in two halves, with the accident in between.

    Args:
        out: folder of the results.
        faults: folder of the accidents, and of ``begun`` and ``ended``: a line for each slide
            that a worker begins with and ends, with the worker's process.
    """

    out: Path
    faults: Path

    def __call__(self, row: dict[str, Any]) -> str:
        name = str(row["slide_id"])
        path = self.out / f"{name}.bin"
        if path.exists():
            return f"{path}: made before"
        self._note("begun", name)
        seed = Path(row["path"]).read_bytes()
        if not seed.startswith(MAGIC):
            raise SlideOpenError("is no slide", row["path"])
        data = shake_256(seed).digest(40_000)
        with complete_file(path) as draft, draft.open("wb") as file:
            file.write(data[:20_000])
            file.flush()
            count(tiles=TILES // 2)
            time.sleep(USUAL_S)
            self._accident(name)
            file.write(data[20_000:])
            count(tiles=TILES // 2)
        self._note("ended", name)
        return f"{path}: written"

    def _note(self, what: str, name: str) -> None:
        with (self.faults / what).open("a") as file:
            file.write(f"{name} {os.getpid()}\n")

    def _accident(self, name: str) -> None:
        for how in ("kill", "always-kill", "wait", "sleep", "memory", "disk"):
            fault = self.faults / f"{name}.{how}"
            if not fault.exists():
                continue
            if how != "always-kill":
                try:
                    fault.unlink()
                except FileNotFoundError:  # another worker had it
                    continue
            getattr(self, f"_{how.replace('-', '_')}")(name)

    def _kill(self, name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    _always_kill = _kill

    def _wait(self, name: str) -> None:
        """Until the test says go, or has killed this process."""
        (self.faults / f"{name}.{os.getpid()}.waits").touch()
        deadline = time.monotonic() + PATIENCE_S
        while not (self.faults / "go").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name}: nobody said go")
            time.sleep(0.02)

    def _sleep(self, name: str) -> None:
        """Longer than any test runs."""
        (self.faults / f"{name}.{os.getpid()}.sleeps").touch()
        while True:
            time.sleep(0.02)

    def _memory(self, name: str) -> None:
        """No more memory than is in use; that is over when the slide is given up."""
        former = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), former[1]))
        try:
            bytearray(2**30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, former)

    def _disk(self, name: str) -> None:
        """No file of this process grows beyond what half a result takes."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, resource.RLIM_INFINITY))


def notes(faults: Path, what: str) -> list[str]:
    """The slides that workers began with, or ended, in that order."""
    path = faults / what
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


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
