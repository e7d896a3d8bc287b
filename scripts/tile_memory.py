"""Memory of `pathology tile` over a long run: prints how much each process holds as slides go by.

    .venv/bin/python scripts/tile_memory.py --slides 400 --workers 2

Makes small slides in a scratch folder, tiles them with the verb's own work and runner, and reads
the resident memory of every process after each slide. A curve that is flat after the first tens of
slides, in which libraries load and caches fill, says that nothing is kept of a slide that is done.
"""

import argparse
import os
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathology.cli.tile_slide import Tiler
from pathology.cohort.choice import make_engine
from pathology.cohort.each_slide import each_slide
from pathology.tiling import TileSpec

PAGE = os.sysconf("SC_PAGE_SIZE")
DISTINCT = 8  # slides rendered; the others are links to them, which are opened and tiled anew


def resident_mib() -> float:
    """Memory of this process that is in use now, not at its peak."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


@dataclass(frozen=True)
class Measured:
    """Tiles a slide and notes the memory of the process that did."""

    tiler: Tiler
    notes: Path

    def __call__(self, row: dict[str, Any]) -> str:
        line = self.tiler(row)
        with (self.notes / str(os.getpid())).open("a") as file:
            file.write(f"{resident_mib():.2f}\n")
        return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=2048, help="of a slide, in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        table = make_slides(scratch / "slides", options.slides, options.side)
        notes = scratch / "notes"
        notes.mkdir()
        work = Measured(Tiler(scratch / "tiles", TileSpec(64, 0.5)), notes)
        (scratch / "tiles").mkdir()
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            each_slide(table, work, "tiling", engine=make_engine(workers=options.workers))
        print(f"\nMiB after each tenth of {len(table)} slides of {options.side} px")
        for process in sorted(notes.iterdir()):
            curve = [float(line) for line in process.read_text().split()]
            tenths = [curve[max(0, len(curve) * i // 10 - 1)] for i in range(11)]
            growth = (curve[-1] - curve[len(curve) // 4]) / (len(curve) * 3 / 4)
            print(
                f"process {process.name}, {len(curve)} slides: "
                + " ".join(f"{value:.0f}" for value in tenths)
                + f"; {growth * 1024:+.1f} KiB a slide over the last three quarters"
            )


def make_slides(folder: Path, count: int, side: int) -> Any:
    """A table of ``count`` slides, ``DISTINCT`` of them different."""
    import pandas as pd

    from pathology.synthetic import SyntheticSlideSpec, write_slide

    folder.mkdir()
    paths = []
    for i in range(count):
        path = folder / f"{i:05d}.tif"
        if i < DISTINCT:
            write_slide(SyntheticSlideSpec(seed=i, size_px=(side, side), mpp=0.5), path)
        else:
            path.symlink_to(paths[i % DISTINCT])
        paths.append(path)
    ids = [path.stem for path in paths]
    return pd.DataFrame({"slide_id": ids, "path": paths, "mpp": float("nan")})


if __name__ == "__main__":
    main()
