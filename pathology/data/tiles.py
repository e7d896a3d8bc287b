"""Datasets of labelled tiles: image files, or boxes on slides read as they are needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from pathology.errors import ManifestError, StampMismatchError
from pathology.slides import Slide, open_slide
from pathology.tiling import TileGrid, TileSpec

Sample = dict[str, Any]


class ImageTiles(Dataset[Sample]):
    """One image file per tile.

    Args:
        table: rows with ``path`` and ``label``, see ``read_tile_manifest``.
        classes: class names; a label's index is its place here.
        size_px: side to resize to (bicubic, antialiased); images keep their size when omitted.
        transform: applied to ``{"image", "label"}``.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        classes: Sequence[str],
        size_px: int | None = None,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.paths = table["path"].to_numpy()
        self.labels = label_indices(table["label"], classes)
        self.size_px = size_px
        self.transform = transform
        try:
            with Image.open(self.paths[0]) as first:
                self.first_size = first.size
        except (OSError, UnidentifiedImageError) as error:
            raise ManifestError(f"{self.paths[0]}: not a readable image: {error}") from error

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        sample = {"image": self._read(self.paths[index]), "label": int(self.labels[index])}
        return self.transform(sample) if self.transform else sample

    def _read(self, path: str) -> Tensor:
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise ManifestError(f"{path}: not a readable image: {error}") from error
        if image.width != image.height:
            raise ManifestError(
                f"{path}: tiles must be square, got {image.width} x {image.height} px; cut it first"
            )
        if self.size_px is None and image.size != self.first_size:
            raise ManifestError(
                f"{path}: {image.width} px wide, the first tile {self.first_size[0]} px;"
                " set size_px to resize all tiles to one size"
            )
        if self.size_px is not None and image.size != (self.size_px, self.size_px):
            image = image.resize((self.size_px, self.size_px), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(np.asarray(image).transpose(2, 0, 1)))


class SlideTiles(Dataset[Sample]):
    """Labelled boxes on slides, read from the slide files themselves at the grid's mpp.

    Args:
        table: rows with ``slide_id``, ``path`` and possibly ``mpp``, see ``read_slide_manifest``.
        tiles: folder of ``<slide_id>.parquet`` grids with a ``label`` column.
        classes: class names; tiles with another or no label are left out.
        transform: applied to ``{"image", "label"}``.

    Raises:
        ManifestError: a grid is missing, has no labels, or nothing is left.
        StampMismatchError: grids of different tile sizes, or made for another slide.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        tiles: str | Path,
        classes: Sequence[str],
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.transform = transform
        self.slides: list[Slide] = []
        self.grids: list[TileGrid] = []
        owner, row, labels = [], [], []
        for record in table.to_dict("records"):
            path = Path(tiles) / f"{record['slide_id']}.parquet"
            if not path.is_file():
                raise ManifestError(
                    f"{path}: no tile table for slide {record['slide_id']!r};"
                    " run `pathology tile` on this manifest first"
                )
            source = TileGrid.load(path).source
            mpp = record.get("mpp")
            if mpp is None or pd.isna(mpp):
                # What was said when tiling still holds; the file may not know.
                mpp = source.mpp.x if source.mpp_source == "given" else None
            slide = open_slide(record["path"], mpp=mpp)
            grid = TileGrid.load(path, slide=slide)
            if self.grids and grid.spec != self.spec:
                raise StampMismatchError(
                    f"{path}: tiles of {grid.spec}, others of {self.spec};"
                    " tile all slides with one specification"
                )
            if "label" not in grid.columns:
                raise ManifestError(
                    f"{path}: tiles have no labels; give the manifest a `regions` column and run"
                    " `pathology tile` again"
                )
            named = np.asarray(grid.columns["label"], dtype=object)
            kept = np.flatnonzero(np.isin(named, list(classes)))
            owner.append(np.full(len(kept), len(self.slides), dtype=np.int32))
            row.append(kept.astype(np.int32))
            labels.append(label_indices(pd.Series(named[kept]), classes))
            self.slides.append(slide)
            self.grids.append(grid)
        self.owner, self.row, self.labels = map(np.concatenate, (owner, row, labels))
        if not len(self.labels):
            raise ManifestError(
                f"{tiles}: no tile is labelled as one of {', '.join(classes)}; check the regions"
            )

    @property
    def spec(self) -> TileSpec:
        """What all tiles were cut by."""
        return self.grids[0].spec

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        grid = self.grids[self.owner[index]]
        tile = grid[int(self.row[index])]
        pixels = self.slides[self.owner[index]].read(tile.box, mpp=self.spec.mpp)
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))
        sample = {"image": image, "label": int(self.labels[index])}
        return self.transform(sample) if self.transform else sample


def label_indices(labels: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Place of each label in ``classes``, int64.

    Raises:
        ManifestError: a label that is no class.
    """
    places = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(labels) - set(places))
    if unknown:
        raise ManifestError(
            f"label {unknown[0]!r} is not one of the classes {', '.join(classes)};"
            " correct the manifest or the list of classes"
        )
    return labels.map(places).to_numpy(dtype=np.int64)
