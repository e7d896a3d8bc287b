"""Work on tiny slides that meets with accidents: imported by worker processes."""

import time
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path
from typing import Any

from pathology.cohort.counting import count
from pathology.outputs import complete_file
from tests.cluster.accidents import note, stumble

TILES = 8  # of each slide
USUAL_S = 0.04  # that a slide takes


def write_slides(folder: Path, names: list[str]) -> list[dict[str, Any]]:
    """Small files that :class:`Halves` takes for slides; their rows of a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.tif").write_text(name)
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
        note(self.faults, "begun", name)
        data = shake_256(Path(row["path"]).read_bytes()).digest(40_000)
        with complete_file(path) as draft, draft.open("wb") as file:
            file.write(data[:20_000])
            file.flush()
            count(tiles=TILES // 2)
            time.sleep(USUAL_S)
            stumble(self.faults, name)
            file.write(data[20_000:])
            count(tiles=TILES // 2)
        note(self.faults, "ended", name)
        return f"{path}: written"
