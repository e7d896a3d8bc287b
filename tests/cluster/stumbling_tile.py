"""`pathology tile` whose workers meet with accidents; ``python -m`` takes the same words.

The variable FAULTS names the folder of the accidents, and of ``begun``: a line for each slide that
a worker begins with.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.tile_slide import Tiler
from pathology.outputs import draft_path
from tests.cluster.accidents import note, stumble

if TYPE_CHECKING:
    from pathology.slides import Slide
    from pathology.tiling import TileGrid
    from pathology.tissue import Survey


def _faults() -> Path:
    return Path(os.environ["FAULTS"])


@dataclass(frozen=True)
class StumblingTiler(Tiler):
    """Has its accident after the picture, with half of the table written."""

    faults: Path = field(default_factory=_faults)

    def __call__(self, row: dict[str, Any]) -> str:
        note(self.faults, "begun", str(row["slide_id"]))
        return super().__call__(row)

    def _show(
        self, row: dict[str, Any], slide: "Slide", found: "Survey", grid: "TileGrid | None"
    ) -> None:
        super()._show(row, slide, found, grid)
        draft = draft_path(self._path(row, ".parquet"))
        try:
            draft.write_bytes(b"half of it")
            stumble(self.faults, str(row["slide_id"]))
        finally:
            draft.unlink()


if __name__ == "__main__":
    from pathology.cli import main
    from pathology.cli import tile as verb

    # By the name that workers find it under, which is not __main__.
    from tests.cluster.stumbling_tile import StumblingTiler as named

    verb.Tiler = named  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
