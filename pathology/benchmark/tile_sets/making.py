"""Making tile sets by their settings, as configs write them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from pathology.benchmark.nearest import hint
from pathology.benchmark.tile_sets.folder import FolderTiles
from pathology.benchmark.tile_sets.nuclei import NucleiTiles
from pathology.benchmark.tile_sets.synthetic import SyntheticTiles
from pathology.benchmark.tile_sets.tile_set import TileSet
from pathology.benchmark.tile_sets.writing import Tile, found_set, write_set

Progress = Callable[[str, int, int], None]


class Maker(Protocol):
    """Makes the tiles of a set; its settings are its fields."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def positive(self) -> str | None: ...
    @property
    def size_px(self) -> int: ...
    @property
    def masks(self) -> tuple[str, ...]: ...
    def made_by(self) -> dict[str, Any]: ...
    def make(self, progress: Progress | None = None) -> Iterator[Tile]: ...


KINDS: dict[str, Callable[..., Maker]] = {
    "synthetic": SyntheticTiles,
    "folder": FolderTiles,
    "nuclei": NucleiTiles,
}
"""Makers by what configs call them."""


def make_maker(settings: Mapping[str, Any]) -> Maker:
    """The maker of some settings, which are checked, though nothing is made.

    Args:
        settings: ``kind``, a key of :data:`KINDS`, and the maker's own.

    Raises:
        ValueError: no such kind or setting, or a value out of range.
    """
    own = dict(settings)
    kind = own.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"kind of a tile set must be one of {', '.join(KINDS)}; got {kind!r}")
    known = [f.name for f in fields(KINDS[kind])]  # type: ignore[arg-type]
    for name in own:
        if name not in known:
            meant = hint(name, known, f"it has {', '.join(known)}")
            raise ValueError(f"tile sets of kind {kind} have no setting {name!r}; {meant}")
    try:
        return KINDS[kind](**own)
    except TypeError as error:
        raise ValueError(f"tile set of kind {kind}: {error}") from error


def make_tile_set(
    settings: Mapping[str, Any], folder: str | Path, progress: Progress | None = None
) -> TileSet:
    """The tile set of these settings, made where it is not there yet.

    Args:
        settings: see :func:`make_maker`.
        folder: where it lies or goes.
        progress: called with (split, tiles done, tiles in all).

    Raises:
        ValueError: see :func:`make_maker`.
        ManifestError: the data that it is made of cannot be used.
        StampMismatchError: the folder holds a set of other settings.
        OutputError: it cannot be written.
    """
    maker, folder = make_maker(settings), Path(folder)
    made_by = maker.made_by()
    found = found_set(folder, made_by)
    if found is not None:
        return found
    return write_set(
        folder,
        made_by,
        maker.classes,
        maker.size_px,
        maker.positive,
        maker.masks,
        maker.make(progress),
    )
