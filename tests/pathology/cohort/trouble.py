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
        path = self.out / "tried"
        return path.read_text().splitlines() if path.exists() else []

    def __call__(self, row):
        words = row["slide_id"].split()
        well = "once" in words and row["slide_id"] in self.tried()
        with (self.out / "tried").open("a") as file:
            file.write(f"{row['slide_id']}\n")
        if "count" in words:
            from pathology.cohort.counting import count

            for _ in range(int(words[1])):
                count(tiles=1, waited_s=0.25)
        if not well:
            self.fail(row, words)
        if "slow" in words:
            time.sleep(0.1)
        if "torch" in words:
            return f"{row['slide_id']}: {'torch' in sys.modules} {os.environ['OMP_NUM_THREADS']}"
        if "clock" in words:
            return os.environ["SOURCE_DATE_EPOCH"]
        if "nice" in words:
            return str(os.nice(0))
        if "card" in words:
            return os.environ["CUDA_VISIBLE_DEVICES"]
        return f"{row['slide_id']}: done by {os.getpid()}"

    def fail(self, row, words):
        if "segfault" in words:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "memory" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in words:
            sys.exit(7)
        if "refuse" in words:
            from pathology.errors import SlideOpenError

            raise SlideOpenError("is no slide", row["path"])
        if "disk" in words:
            from pathology.errors import OutputError

            raise OutputError("disk full")
        if "bug" in words:
            raise KeyError("nobody expected this")
        if "odd" in words:
            raise OddError("one", 2)
        if "stubborn" in words:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "wait" in words:
            (self.out / f"{row['slide_id']}.{os.getpid()}.waits").touch()
            time.sleep(120)


class OddError(ValueError):
    """Cannot be made again of what its message is."""

    def __init__(self, one: str, two: int) -> None:
        super().__init__(f"{one} and {two}")
