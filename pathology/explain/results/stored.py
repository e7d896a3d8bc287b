"""An explanation read back from its folder: numbers at once, maps a level at a time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from PIL import Image

from pathology.errors import PathologyError
from pathology.explain.ledger import Ledger
from pathology.explain.results.shown import Shown
from pathology.explain.results.view import SlideView
from pathology.geometry import Mpp, Size
from pathology.maps.ome_tiff import read_ome_tiff
from pathology.maps.slide_map import SlideMap

RECORD = "explanation.json"
SLIDE = "slide.jpg"
MAP = ".ome.tif"


@dataclass(frozen=True, eq=False, repr=False)
class StoredExplanation(Shown):
    """What :meth:`~pathology.explain.slide.SlideExplanation.save` or ``pathology explain`` wrote.

    Nothing of the maps is held: each call reads the level that it asks for.

    Args:
        folder: where it is.
        record: what it says of itself: ``ledger``, ``settings``, ``provenance``, ...
    """

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the record of an explanation.

        Raises:
            PathologyError: the folder holds none, or one that is damaged.
        """
        folder = Path(folder)
        try:
            found = cls(folder, json.loads((folder / RECORD).read_text(encoding="utf-8")))
            _ = found.slide_id, found.target, found.ledger
        except (OSError, ValueError, KeyError, TypeError) as error:
            inside = sorted(path.parent.name for path in folder.glob(f"*/{RECORD}"))
            hint = (
                f"give one of the folders in it: {', '.join(inside[:5])}"
                if inside
                else ("give a folder SLIDE/TARGET that `pathology explain` wrote")
            )
            raise PathologyError(
                f"{folder}: no explanation ({RECORD} is missing or damaged); {hint}"
            ) from error
        return found

    @property
    def slide_id(self) -> str:
        """The slide."""
        return str(self.record["slide_id"])

    @property
    def target(self) -> str:
        """What is explained."""
        return str(self.record["target"])

    @cached_property
    def ledger(self) -> Ledger:
        """How the score adds up."""
        return Ledger.from_dict(self.record["ledger"])

    @property
    def settings(self) -> dict[str, Any]:
        """What decided the numbers."""
        return dict(self.record.get("settings", {}))

    @property
    def provenance(self) -> dict[str, str]:
        """What made it, in words."""
        return dict(self.record.get("provenance", {}))

    @cached_property
    def tiles(self) -> pd.DataFrame:
        """One row per tile, see :class:`~pathology.explain.slide.SlideExplanation`."""
        try:
            return pd.read_parquet(self.folder / "tiles.parquet")
        except (OSError, ValueError) as error:
            raise PathologyError(
                f"{self.folder / 'tiles.parquet'}: cannot be read: {error}"
            ) from error

    @property
    def maps(self) -> list[str]:
        """Names of the maps in the folder, layers among them, for :meth:`map`."""
        paths = [*self.folder.glob(f"*{MAP}"), *self.folder.glob(f"layers/*{MAP}")]
        return sorted(p.relative_to(self.folder).as_posix().removesuffix(MAP) for p in paths)

    def map(self, name: str = "heatmap", level: int = 0) -> SlideMap:
        """A map at a level of its pyramid.

        Args:
            name: ``heatmap``, in logits per pixel; ``density``, in logits per mm2; ``layers/...``;
                or another of :attr:`maps`.
            level: 0 the finest; pixels of each are twice as long as of the one before.

        Raises:
            PathologyError: there is no such map, or it cannot be read.
            ValueError: there is no such level.
        """
        if name not in self.maps:
            raise PathologyError(f"{self.folder}: no map {name!r}; it has {', '.join(self.maps)}")
        return read_ome_tiff(self.folder / f"{name}{MAP}", level)[0]

    @property
    def contributions(self) -> SlideMap:
        """The additive map in logits, all of it: read at every call, see :meth:`map` for less."""
        return self.map()

    def stored(self, folder: str | Path) -> Self:
        """Itself."""
        return self

    def overview(self, max_side: int) -> SlideMap:
        """The additive map at the finest level with no side above ``max_side``."""
        return read_ome_tiff(self.folder / f"heatmap{MAP}", max_side=max_side)[0]

    @cached_property
    def view(self) -> SlideView | None:
        """The slide as pictures show it; None where it was not stored."""
        path, slide = self.folder / SLIDE, self.record.get("view")
        if slide is None or not path.is_file():
            return None
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        return SlideView(Size(*slide["size"]), Mpp(*slide["mpp"]), pixels)


def load_explanation(folder: str | Path) -> StoredExplanation:
    """Read an explanation back, a folder ``SLIDE/TARGET`` of ``pathology explain``.

    Raises:
        PathologyError: the folder holds none, or one that is damaged.
    """
    return StoredExplanation.load(folder)
