"""Datasets of labelled tiles: image files, or boxes on slides read as they are needed."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from pathology.data.grids import (
    LOOKING,
    check_source,
    grid_path,
    label_codes,
    load_grid,
    opening_mpp,
    same_rule,
)
from pathology.data.image_files import image_size, read_image
from pathology.data.slide_pool import SlidePool
from pathology.data.stains import TileStains
from pathology.data.truth import NONE
from pathology.errors import ManifestError, StampMismatchError
from pathology.geometry import Box, Size, level0_length
from pathology.slides import Slide, open_slide
from pathology.tiling import GridSource, TileGrid, TileSpec

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]

Crop = Literal["none", "centre"]
TileOutcome = Literal["classes", "labels"]  # one of them a tile, or any number

BLOCK_TILES = 6  # neighbours share stored tiles along both sides: go through blocks, not rows


class ImageTiles(Dataset[Sample]):
    """One image per tile: a file each, or rows of array files.

    Args:
        table: rows with ``path``, ``label`` and possibly ``index``, see ``read_tile_manifest``.
        classes: class names; a label's index is its place here.
        outcome: what rows say: ``classes``, one each, or ``labels``, any number, joined by ``;``,
            and ``none`` for none. Then ``labels`` is float32 ``(tiles, classes)``.
        halo_px: what images show around the tile on each side, in pixels; they are then
            ``size_px + 2 * halo_px`` wide, and are not resized.
        size_px: side to resize to (bicubic, antialiased); images keep their size when omitted.
        transform: applied to ``{"image", "label"}``.
        crop: what becomes of images that are not square: ``none`` refuses them, ``centre`` keeps
            the largest square in their middle.

    Raises:
        ManifestError: a label that is no class; the first image is unreadable, not square, or
            without the halo.
        ValueError: a halo, and no ``size_px``.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        classes: Sequence[str],
        size_px: int | None = None,
        transform: Transform | None = None,
        crop: Crop = "none",
        outcome: TileOutcome = "classes",
        halo_px: int = 0,
    ) -> None:
        if halo_px and size_px is None:
            raise ValueError(
                f"images with a halo of {halo_px} px need size_px, the side of the tile in them"
            )
        # One copy of each path, for a million rows may lie in one file; and none a Python object,
        # for a forked worker that looks at one copies the page it is on.
        places, paths = pd.factorize(table["path"])
        self.files = np.array([os.fsencode(path) for path in paths])
        self.file = places.astype(np.int32)
        self.row = table["index"].to_numpy(np.int64) if "index" in table else None
        read = label_indices if outcome == "classes" else label_flags
        self.labels: NDArray[Any] = read(table["label"], classes)
        self.size_px, self.halo_px = size_px, halo_px
        self.transform, self.crop = transform, crop
        path, row = self._place(0)
        self.first_size = self._square(path, *image_size(path, row))
        self._check_halo(path, self.first_size[0])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        path, row = self._place(index)
        pixels = self._fitted(path, read_image(path, row))
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        label = self.labels[index]
        told = torch.from_numpy(label.copy()) if label.ndim else int(label)
        return _transformed({"image": image, "label": told}, self.transform)

    def _place(self, index: int) -> tuple[str, int | None]:
        row = None if self.row is None else int(self.row[index])
        return os.fsdecode(self.files[self.file[index]]), row

    def _fitted(self, path: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = pixels.shape[:2]
        side = self._square(path, width, height)[0]
        x, y = (width - side) // 2, (height - side) // 2
        pixels = pixels[y : y + side, x : x + side]
        height = width = side
        self._check_halo(path, side)
        if self.halo_px:
            return pixels
        if self.size_px is None and (width, height) != self.first_size:
            raise ManifestError(
                f"{path}: {width} px wide, the first tile {self.first_size[0]} px;"
                " set size_px to resize all tiles to one size"
            )
        if self.size_px in (None, width):
            return pixels
        size = (self.size_px, self.size_px)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def _check_halo(self, path: str, side: int) -> None:
        """Refuse an image that is not a tile with its halo: none can be made up."""
        if not self.halo_px or self.size_px is None:
            return
        if side != (wanted := self.size_px + 2 * self.halo_px):
            raise ManifestError(
                f"{path}: {side} px wide, wanted {wanted} px: a tile of {self.size_px} px and"
                f" {self.halo_px} px around it on each side; cut images with their halo"
            )

    def _square(self, path: str, width: int, height: int) -> tuple[int, int]:
        """What is kept of an image of this size."""
        if width != height and self.crop == "none":
            raise ManifestError(
                f"{path}: tiles must be square, got {width} x {height} px; cut it first, or keep"
                " the square in its middle: crop centre"
            )
        return min(width, height), min(width, height)


class SlideTiles(Dataset[Sample]):
    """Labelled boxes on slides, read from the slide files themselves at the grid's mpp.

    The index is of plain columns, 22 bytes a tile, which forked workers share. Slides are opened by
    the process that reads them, and only a few are kept open. A batch is read in the order in which
    its tiles lie on their slides, and given in the order asked for.

    Args:
        table: rows with ``slide_id``, ``path`` and possibly ``mpp``, see ``read_slide_manifest``.
        tiles: folder of ``<slide_id>.parquet`` grids with a ``label`` column.
        classes: class names; tiles with another or no label are left out. All tiles are there, with
            label 0, when there are no classes.
        transform: applied to ``{"image", "label"}``.
        stains: folder that ``pathology stain`` wrote, to normalise tiles by.
        halo_px: what is read around each tile on each side, in pixels at the grid's mpp; beyond
            the slide lies the background.

    Raises:
        ManifestError: a grid is missing, has no labels, or nothing is left.
        StampMismatchError: grids of different tile sizes, labelled by different fractions, or made
            for another slide.
        SlideOpenError: a slide file cannot be read.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        tiles: str | Path,
        classes: Sequence[str] | None,
        transform: Transform | None = None,
        stains: str | Path | None = None,
        halo_px: int = 0,
    ) -> None:
        self.transform, self.halo_px = transform, halo_px
        records = table.to_dict("records")
        self.paths = [str(record["path"]) for record in records]
        self.sources: list[GridSource] = []
        self.mpps: list[float | tuple[float, float] | None] = []
        parts: list[_Part] = []
        rule: Mapping[str, Any] | None = None
        with ThreadPoolExecutor(LOOKING) as threads:
            indexed = threads.map(
                lambda record: _index_slide(record, Path(tiles), classes), records
            )
            for number, (record, part) in enumerate(zip(records, indexed, strict=True)):
                if parts and part.spec != self.spec:
                    raise StampMismatchError(
                        f"{grid_path(tiles, record)}: tiles of {part.spec}, others of {self.spec};"
                        " tile all slides with one specification"
                    )
                self.spec: TileSpec = part.spec
                rule = same_rule(grid_path(tiles, record), part.rule, rule)
                self.sources.append(part.source)
                self.mpps.append(opening_mpp(record, part.source))
                part.owner = np.full(len(part.labels), number, np.int32)
                parts.append(part)
        self.owner = np.concatenate([part.owner for part in parts])
        self.x = np.concatenate([part.x for part in parts])
        self.y = np.concatenate([part.y for part in parts])
        self.labels = np.concatenate([part.labels for part in parts])
        if classes is not None and not len(self.labels):
            raise ManifestError(
                f"{tiles}: no tile is labelled as one of {', '.join(classes)}; check the regions"
            )
        names = list(table["slide_id"])
        self.stains = stains and TileStains(stains, names, self.sources, self.spec.colour)
        self.slides = SlidePool(self._open)

    def nearby(self) -> NDArray[np.int64]:
        """All tiles, slide after slide, in blocks that share what the file stores together."""
        height = np.array([self._tile_size(source).height for source in self.sources])
        strip = np.floor(self.y / (BLOCK_TILES * height)[self.owner])
        return np.lexsort((self.y, self.x, strip, self.owner)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        slide = int(self.owner[index])
        box = self._box(index, self.sources[slide])
        pixels = self.slides[slide].read(box, mpp=self.spec.mpp)
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        if self.stains:
            image = self.stains(image, slide)
        return _transformed({"image": image, "label": int(self.labels[index])}, self.transform)

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The tiles of a batch, each stored tile of a slide met in one go."""
        asked = np.asarray(indices)
        samples: list[Sample] = [{}] * len(asked)
        for place in np.lexsort((self.x[asked], self.y[asked], self.owner[asked])):
            samples[place] = self[int(asked[place])]
        return samples

    def _box(self, index: int, source: GridSource) -> Box:
        """What is read for a tile: itself and its halo."""
        x, y = float(self.x[index]), float(self.y[index])
        right, down = (level0_length(self.halo_px, self.spec.mpp, side) for side in source.mpp)
        width, height = self._tile_size(source)
        return Box(x - right, y - down, width + 2 * right, height + 2 * down)

    def _tile_size(self, source: GridSource) -> Size:
        size, mpp = self.spec.size_px, self.spec.mpp
        return Size(*(level0_length(size, mpp, side) for side in source.mpp))

    def _open(self, number: int) -> Slide:
        slide = open_slide(self.paths[number], self.mpps[number], colour=self.spec.colour)
        check_source(slide, self.sources[number])
        return slide


class _Part:
    """One slide's share of the index."""

    def __init__(self, grid: TileGrid, labels: NDArray[np.int16]) -> None:
        kept = np.flatnonzero(labels >= 0)
        self.spec, self.source, self.rule = grid.spec, grid.source, grid.made.get("label")
        self.x, self.y, self.labels = grid.x[kept], grid.y[kept], labels[kept]
        self.owner = np.empty(0, np.int32)


def _index_slide(record: Mapping[Any, Any], tiles: Path, classes: Sequence[str] | None) -> _Part:
    """The labelled tiles of a slide, whose file is known to be the one that was tiled."""
    path = grid_path(tiles, record)
    grid = load_grid(path, record)
    if classes is None:
        return _Part(grid, np.zeros(len(grid), np.int16))
    if "label" not in grid.columns:
        raise ManifestError(
            f"{path}: tiles have no labels; give the manifest a `regions` column and run"
            " `pathology tile` again"
        )
    return _Part(grid, label_codes(grid.columns["label"], classes))


def label_indices(labels: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
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
    indices: NDArray[np.int64] = np.asarray(labels.map(places), np.int64)
    return indices


def label_flags(labels: pd.Series, classes: Sequence[str]) -> NDArray[np.float32]:
    """Which of ``classes`` each row names, ``(rows, classes)`` of 0 and 1.

    Raises:
        ManifestError: a name that is no class.
    """
    kinds, cells = pd.factorize(labels)
    named = [{name.strip() for name in str(cell).split(";")} - {"", NONE} for cell in cells]
    unknown = sorted(set().union(*named) - set(classes))
    if unknown:
        raise ManifestError(
            f"label {unknown[0]!r} is not one of {', '.join(classes)}; several are joined by ;"
            f" and a tile without any says {NONE}; correct the manifest or the list of classes"
        )
    flags = np.array([[name in names for name in classes] for names in named], np.float32)
    return flags.reshape(-1, len(classes))[kinds]


def _transformed(sample: Sample, transform: Transform | None) -> Sample:
    return transform(sample) if transform else sample
