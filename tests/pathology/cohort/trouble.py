"""Work on slides that goes wrong: imported by worker processes, so it is light."""

import os
import signal
import sys
import time
from pathlib import Path


class Trouble:
    """Writes a line per slide into a folder; does what a slide's name says instead.

    What has `once` in its name goes well the second time.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def tried(self) -> list[str]:
        return (self.out / "tried").read_text().splitlines()

    def __call__(self, row):
        name = row["slide_id"]
        first = not (self.out / "tried").exists() or name not in self.tried()
        with (self.out / "tried").open("a") as file:
            file.write(f"{name}\n")
        if "once" in name and not first:
            return f"{name}: done by {os.getpid()}"
        if name.startswith("segfault"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith("memory"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("exit"):
            sys.exit(7)
        if name.startswith("refuse"):
            from pathology.errors import SlideOpenError

            raise SlideOpenError("is no slide", row["path"])
        if name.startswith("disk"):
            from pathology.errors import OutputError

            raise OutputError("disk full")
        if name.startswith("bug"):
            raise KeyError("nobody expected this")
        if name.startswith("odd"):
            raise OddError("one", 2)
        if name.startswith("wait"):
            (self.out / f"{name}.{os.getpid()}.waits").touch()
            time.sleep(120)
        if name.startswith("slow"):
            time.sleep(0.1)
        if name.startswith("torch"):
            return f"{name}: {'torch' in sys.modules} {os.environ['OMP_NUM_THREADS']}"
        return f"{name}: done"


class OddError(ValueError):
    """Cannot be made again of what its message is."""

    def __init__(self, one: str, two: int) -> None:
        super().__init__(f"{one} and {two}")
