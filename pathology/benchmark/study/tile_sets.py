"""Tile sets of a study, made once."""

from collections.abc import Callable
from pathlib import Path

from pathology.benchmark.study.cells import BlockedError, Cell
from pathology.benchmark.study.config import Study
from pathology.benchmark.tile_sets import TileSet, load_tile_set, make_maker, make_tile_set
from pathology.errors import PathologyError


class TileSets:
    """Of a study, by name; each is read once.

    Args:
        study: whose.
        out: folder of cells.
    """

    def __init__(self, study: Study, out: Path) -> None:
        self.study, self.out = study, out
        self._cells: dict[str, Cell] = {}
        self._sets: dict[str, TileSet] = {}

    def cell(self, data: str) -> Cell:
        """Of a tile set.

        Raises:
            ManifestError: the data that it is made of cannot be used.
        """
        if data not in self._cells:
            made_by = make_maker(self.study.data[data]).made_by()
            self._cells[data] = Cell("data", data, dict(made_by))
        return self._cells[data]

    def make(self, data: str, tell: Callable[[str], None]) -> bool:
        """Make a tile set; False where it is there already."""
        folder = self.cell(data).folder(self.out)
        if folder.is_dir():
            load_tile_set(folder)
            return False
        make_tile_set(
            self.study.data[data],
            folder,
            lambda split, done, of: tell(f"{split} {done}/{of}"),
        )
        return True

    def get(self, data: str) -> TileSet:
        """A tile set that is made.

        Raises:
            BlockedError: it is not.
        """
        if data not in self._sets:
            try:
                self._sets[data] = load_tile_set(self.cell(data).folder(self.out))
            except PathologyError as error:
                raise BlockedError(f"tile set {data}") from error
        return self._sets[data]
