"""Lightning data modules."""

import hashlib
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
from monai.data import DataLoader
from torch.utils.data import WeightedRandomSampler

from pathology.data.augment import Augment, tile_augmentation
from pathology.data.manifest import SPLITS, read_slide_manifest, read_tile_manifest
from pathology.data.tiles import ImageTiles, SlideTiles
from pathology.errors import ManifestError

TileDataset = ImageTiles | SlideTiles


class TileDataModule(lightning.LightningDataModule):
    """Labelled tiles by split, from image files or straight from slides.

    Args:
        manifest: CSV of image files (``path, label, split``), or of slides when ``tiles`` is given
            (``slide_id, path, split``).
        classes: class names, in the order of the model's logits.
        tiles: folder of labelled tile tables, one per slide.
        root: folder that the manifest's paths are relative to; its own when omitted.
        path_column: column of a tile manifest that holds the image's path.
        size_px: side that image files are resized to; slides are read at their grid's size.
        batch_size: tiles per step.
        num_workers: reading processes.
        augment: what is done to training tiles, see ``tile_augmentation``.
        balance: draw classes equally often while training.
    """

    def __init__(
        self,
        manifest: str,
        classes: list[str],
        tiles: str | None = None,
        root: str | None = None,
        path_column: str = "path",
        size_px: int | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        augment: Augment = "turns+colour",
        balance: bool = False,
    ) -> None:
        super().__init__()
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise ValueError(f"classes must be at least two different names, got {classes}")
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"batch_size must be positive and num_workers at least 0,"
                f" got {batch_size} and {num_workers}"
            )
        self.manifest, self.tiles, self.root = manifest, tiles, root
        self.classes, self.path_column, self.size_px = classes, path_column, size_px
        self.batch_size, self.num_workers = batch_size, num_workers
        self.augment, self.balance = augment, balance
        self._datasets: dict[tuple[str, bool], TileDataset] = {}

    def table(self) -> pd.DataFrame:
        """The checked manifest."""
        if self.tiles is not None:
            return read_slide_manifest(self.manifest, root=self.root)
        return read_tile_manifest(self.manifest, root=self.root, path_column=self.path_column)

    def setup(self, stage: str) -> None:
        """Check the manifest and index what the stage needs.

        Raises:
            ManifestError: a split that is needed has no tiles, or none of some class.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, (stage,)):
            self.dataset(split, training=stage == "fit" and split == "train")

    def dataset(self, split: str, training: bool = False) -> TileDataset:
        """The tiles of a split, augmented only for training; indexed on first use.

        Raises:
            ValueError: no such split.
            ManifestError: it has no tiles, or none of some class.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        if (split, training) not in self._datasets:
            table = self.table()
            if "split" not in table:
                raise ManifestError(f"{self.manifest}: column 'split' is missing")
            chosen = table[table["split"] == split].reset_index(drop=True)
            self._datasets[split, training] = self._index(chosen, split, training)
        return self._datasets[split, training]

    def _index(self, table: pd.DataFrame, split: str, training: bool) -> TileDataset:
        if table.empty:
            raise ManifestError(f"{self.manifest}: no row has split {split!r}")
        transform = tile_augmentation(self.augment if training else "none")
        dataset: TileDataset
        if self.tiles is not None:
            dataset = SlideTiles(table, Path(self.tiles), self.classes, transform)
        else:
            dataset = ImageTiles(table, self.classes, self.size_px, transform)
        counts = np.bincount(dataset.labels, minlength=len(self.classes))
        if not counts.all():
            # A metric over classes that are not there would be a number that means nothing.
            raise ManifestError(
                f"{self.manifest}: split {split!r} has no tile of class"
                f" {self.classes[int(counts.argmin())]!r}; add some, or correct the classes"
            )
        return dataset

    def digest(self) -> str:
        """SHA-256 over the manifest and all tile tables it names: what a run is made from."""
        content = hashlib.sha256(Path(self.manifest).read_bytes())
        if self.tiles is not None:
            for name in self.table()["slide_id"]:
                path = Path(self.tiles) / f"{name}.parquet"
                content.update(path.read_bytes() if path.is_file() else b"none")
        return content.hexdigest()

    def loader(self, split: str, training: bool = False) -> DataLoader:
        """Batches of ``{"image": uint8 (batch, 3, h, w), "label": (batch,)}``.

        Each tile once and in the manifest's order, unless for training: then shuffled or balanced,
        augmented, and without a last batch that is too small.
        """
        dataset = self.dataset(split, training)
        sampler = None
        if training and self.balance:
            counts = np.bincount(dataset.labels, minlength=len(self.classes))
            weights = (1.0 / counts[dataset.labels]).tolist()
            sampler = WeightedRandomSampler(weights, len(dataset))
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=training and sampler is None,
            sampler=sampler,
            drop_last=training and len(dataset) > self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader:
        return self.loader("train", training=True)

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")
