"""Small slides, and work on them that goes wrong: imported by worker processes, so it is light."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import tifffile


def write_slide(path: Path, seed: int, mpp: float | None = 2.0, side: int = 512) -> Path:
    """A plain pyramid-less TIFF with a block of coloured, textured tissue on bright glass."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 240, np.uint8)
    tissue = rng.integers(60, 220, (side // 16, side // 16, 3), np.uint8)
    tissue[..., 1] //= 2
    left = side // 8 + 8 * (seed % 5)
    pixels[side // 4 : side // 4 * 3, left : left + side // 2] = tissue.repeat(8, 0).repeat(8, 1)
    options = {}
    if mpp is not None:
        options = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", compression="zlib", **options
    )
    return path


def write_slides(folder: Path, count: int) -> list[Path]:
    return [write_slide(folder / f"slide {i:03d} ü.tif", i) for i in range(count)]


class Trouble:
    """Writes a line per slide into a folder; does what a slide's name says instead."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, row):
        name = row["slide_id"]
        with (self.out / "tried").open("a") as file:
            file.write(f"{name}\n")
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
