"""Bags of tiles: features from disk, or pixels from slides."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pathology.data.bag_sampler import Draw, draw_tiles, spread_tiles
from pathology.data.features import FeatureFolder
from pathology.data.tiles import SlideTiles
from pathology.errors import ManifestError
from pathology.tiling import TileSpec

Sample = dict[str, Any]

GAP_UM = 1e5  # from one slide of a patient to the next: wider than any glass


class Bags(Dataset[Sample]):
    """Bags of slides' tiles, each of one slide or of several.

    A bag asked for by its number is whole, in the order of its tiles, or ``most_whole`` of them
    evenly over that order. Asked for by a :class:`Draw` it is of ``most`` tiles at random.

    Args:
        slides: of each bag, its slides by number.
        counts: tiles of each slide.
        names: of each bag, for messages.
        targets: of each bag, what a loss needs.
        most: tiles of a bag shown at most while training.
        most_whole: tiles of a bag shown at most otherwise.
        dropout: share of a bag's tiles left out while training.
        seed: of the draws.

    Raises:
        ManifestError: a bag without tiles.
    """

    spec: TileSpec
    """How the tiles were cut."""

    def __init__(
        self,
        slides: Sequence[Sequence[int]],
        counts: Sequence[int],
        names: Sequence[str],
        targets: Mapping[str, Tensor],
        *,
        most: int | None,
        most_whole: int | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.members = [list(bag) for bag in slides]
        self.targets = dict(targets)
        self.most, self.most_whole, self.dropout, self.seed = most, most_whole, dropout, seed
        self._counts = [np.array([counts[i] for i in bag], np.int64) for bag in self.members]
        self.sizes = np.array([bag.sum() for bag in self._counts], np.int64)
        empty = np.flatnonzero(self.sizes == 0)
        if len(empty):
            shown = ", ".join(names[i] for i in empty[:3])
            raise ManifestError(
                f"{len(empty)} bags have no tiles ({shown}); tile their slides with less tissue"
                " asked for, or take their rows out of the manifest"
            )

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, which: int | Draw) -> Sample:
        if isinstance(which, Draw):
            bag, count = which.bag, int(self.sizes[which.bag])
            chosen = draw_tiles(count, self.most, self.dropout, self.seed, which)
        else:
            bag, count = which, int(self.sizes[which])
            chosen = spread_tiles(count, self.most_whole)
        ends = np.cumsum(self._counts[bag])
        cuts = np.searchsorted(chosen, ends)
        parts, places = [], []
        left = 0.0
        for slide, rows, begin in zip(
            self.members[bag], np.split(chosen, cuts[:-1]), ends - self._counts[bag], strict=True
        ):
            tiles, centres = self.read(slide, rows - begin)
            parts.append(tiles)
            # Slides of a patient lie side by side.
            places.append(centres + np.array([left, 0.0]))
            left += GAP_UM
        sample: Sample = {name: values[bag] for name, values in self.targets.items()}
        positions = torch.from_numpy(np.concatenate(places).astype(np.float32))
        sample |= {self.holds: torch.cat(parts), "positions": positions}
        return sample | {"index": bag, "count": count}

    holds: str
    """Name of a batch's entry for the tiles: ``features`` or ``image``."""

    def read(self, slide: int, rows: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.float64]]:
        """Tiles of a slide ``(n, ...)`` and their centres ``(n, 2)`` in micrometres."""
        raise NotImplementedError


class FeatureBags(Bags):
    """Bags of features that ``pathology features`` wrote.

    Args:
        folder: the features of the slides, in the order that bags number them.
        slides, names, targets: as in :class:`Bags`.
        options: likewise.

    Raises:
        ManifestError: as :class:`Bags`.
    """

    holds = "features"

    def __init__(
        self,
        folder: FeatureFolder,
        slides: Sequence[Sequence[int]],
        names: Sequence[str],
        targets: Mapping[str, Tensor],
        **options: Any,
    ) -> None:
        self.folder, self.slide_ids = folder, folder.slide_ids
        counts = [folder.counts[slide_id] for slide_id in self.slide_ids]
        super().__init__(slides, counts, names, targets, **options)
        self.spec = folder.kind.tiles

    def read(self, slide: int, rows: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.float64]]:
        found = self.folder.read(self.slide_ids[slide], rows)
        return torch.from_numpy(found.features), found.positions_um


class TileBags(Bags):
    """Bags of tiles as pixels, to train an encoder together with an aggregator.

    Args:
        tiles: all tiles of the slides, in the order that bags number them.
        slides, names, targets: as in :class:`Bags`.
        options: likewise.

    Raises:
        ManifestError: as :class:`Bags`.
    """

    holds = "image"

    def __init__(
        self,
        tiles: SlideTiles,
        slides: Sequence[Sequence[int]],
        names: Sequence[str],
        targets: Mapping[str, Tensor],
        **options: Any,
    ) -> None:
        self.tiles = tiles
        counts = np.bincount(tiles.owner, minlength=len(tiles.paths))
        self._starts = np.cumsum(counts) - counts
        super().__init__(slides, counts.tolist(), names, targets, **options)
        self.spec = tiles.spec

    def read(self, slide: int, rows: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.float64]]:
        places = self._starts[slide] + rows
        side = self.spec.size_px
        images = [sample["image"] for sample in self.tiles.__getitems__(places.tolist())]
        stacked = (
            torch.stack(images) if images else torch.empty(0, 3, side, side, dtype=torch.uint8)
        )
        source = self.tiles.sources[slide]
        half = self.spec.size_px * self.spec.mpp / 2
        corners = np.stack([self.tiles.x[places], self.tiles.y[places]], axis=1)
        return stacked, corners * np.array(source.mpp) + half


def pad_bags(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """A batch of bags, filled up with zeros to the longest.

    Returns:
        Each entry with a first dimension for bags; tiles, their ``positions``, and ``present``
        ``(bags, tiles)`` bool.
    """
    counts = torch.tensor([len(sample["positions"]) for sample in samples])
    longest = int(counts.max())
    batch: dict[str, Tensor] = {}
    for name, first in samples[0].items():
        if name in ("features", "image", "positions"):
            padded = first.new_zeros(len(samples), longest, *first.shape[1:])
            for row, sample in zip(padded, samples, strict=True):
                row[: len(sample[name])] = sample[name]
            batch[name] = padded
        else:
            batch[name] = torch.stack([torch.as_tensor(sample[name]) for sample in samples])
    batch["present"] = torch.arange(longest) < counts[:, None]
    return batch
