"""A data set of packed tiles, read in any order by where their bytes are."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pathology.data.grids import LOOKING, check_stamp, grid_path, label_codes, same_rule
from pathology.data.shards import Shards, decode_tile
from pathology.data.stains import TileStains
from pathology.data.tiles import Sample, Transform
from pathology.errors import ManifestError, StampMismatchError
from pathology.slides.stamp import stamp_file
from pathology.tiling import GridSource, TileSpec


class ShardTiles(Dataset[Sample]):
    """Labelled tiles from the shards that ``pathology pack`` wrote.

    The same tiles in the same order as :class:`~pathology.data.tiles.SlideTiles` of the same table,
    in an index of 22 bytes a tile. Slide files need not be there; where they are, they must be
    those that were packed.

    Args:
        table: rows with ``slide_id``, see ``read_slide_manifest``.
        shards: folder of the shards.
        classes: class names; tiles with another or no label are left out.
        transform: applied to ``{"image", "label"}``.
        stains: folder that ``pathology stain`` wrote, to normalise tiles by.

    Raises:
        ManifestError: a slide was not packed, a shard is missing or cut short, or no tile has one
            of the classes.
        StampMismatchError: slides packed with different settings, labelled by different fractions,
            or from another file.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        shards: str | Path,
        classes: Sequence[str],
        transform: Transform | None = None,
        stains: str | Path | None = None,
    ) -> None:
        self.folder = Path(shards)
        self.transform = transform
        self.sources: list[GridSource] = []
        self.files: list[str] = []
        columns: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("owner", "shard", "offset", "length", "labels")
        }
        records = table.to_dict("records")
        rule: Mapping[str, Any] | None = None
        with ThreadPoolExecutor(LOOKING) as threads:
            for slide in threads.map(lambda record: _load(record, self.folder), records):
                made = slide.spec, slide.stamp["quality"]
                if self.sources and made != (self.spec, self.quality):
                    raise StampMismatchError(
                        f"{self.folder}: slide {slide.stamp['slide_id']} is packed as {made[0]} of"
                        f" quality {made[1]}, others as {self.spec} of {self.quality};"
                        " pack all slides alike"
                    )
                self.spec: TileSpec = made[0]
                self.quality: int | None = made[1]
                where = f"{self.folder}: slide {slide.stamp['slide_id']}"
                rule = same_rule(where, slide.stamp.get("rule"), rule)
                codes = label_codes(slide.columns["label"], classes)
                kept = np.flatnonzero(codes >= 0)
                columns["owner"].append(np.full(len(kept), len(self.sources), np.int32))
                columns["shard"].append(slide.shard[kept] + np.int32(len(self.files)))
                columns["offset"].append(slide.offset[kept])
                columns["length"].append(slide.length[kept])
                columns["labels"].append(codes[kept])
                self.sources.append(slide.source)
                self.files += slide.sizes
        self.owner, self.shard, self.offset, self.length, self.labels = (
            np.concatenate(parts) for parts in columns.values()
        )
        if not len(self.labels):
            raise ManifestError(
                f"{self.folder}: no tile is labelled as one of {', '.join(classes)};"
                " check the regions, tile and pack again"
            )
        names = list(table["slide_id"])
        self.stains = stains and TileStains(stains, names, self.sources, self.spec.colour)

    def nearby(self) -> NDArray[np.int64]:
        """All tiles as they lie in their files."""
        return np.arange(len(self))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The tiles of a batch; every shard is opened once and read from front to back."""
        asked = np.asarray(indices)
        samples: list[Sample] = [{}] * len(asked)
        order = np.lexsort((self.offset[asked], self.shard[asked]))
        ends = np.flatnonzero(np.diff(self.shard[asked[order]])) + 1
        for places in np.split(order, ends):
            path = self.folder / self.files[self.shard[asked[places[0]]]]
            try:
                with path.open("rb") as file:
                    for place in places.tolist():
                        index = int(asked[place])
                        file.seek(int(self.offset[index]))
                        samples[place] = self._sample(index, file.read(int(self.length[index])))
            except (OSError, ValueError) as error:
                raise ManifestError(
                    f"{path}: a tile cannot be read: {error}; remove the slide's shards and pack"
                    " it again"
                ) from error
        return samples

    def _sample(self, index: int, data: bytes) -> Sample:
        pixels, side = decode_tile(data), self.spec.size_px
        if pixels.shape != (side, side, 3):
            raise ValueError(f"{pixels.shape} pixels at byte {self.offset[index]}, wanted {side}")
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        if self.stains:
            image = self.stains(image, int(self.owner[index]))
        sample = {"image": image, "label": int(self.labels[index])}
        return self.transform(sample) if self.transform else sample


def _load(record: Mapping[Any, Any], folder: Path) -> Shards:
    """A slide's shards, complete, and of its file where that is at hand."""
    slide = Shards.load(grid_path(folder, record))
    slide.check_files(folder)
    path = Path(str(record.get("path", "")))
    if path.is_file():
        check_stamp(folder, slide.source, stamp_file(path))
    return slide
