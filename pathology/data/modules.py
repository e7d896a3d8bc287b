"""Lightning data modules."""

import hashlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from monai.data import DataLoader
from numpy.typing import NDArray

from pathology.data.augment import Augment, Augmentation, batch_augmentation
from pathology.data.loader import TileLoader
from pathology.data.manifest import SPLITS, image_names, read_slide_manifest, read_tile_manifest
from pathology.data.samplers import BALANCES, STRETCH, Balance, TileSampler, draw_weights
from pathology.data.shard_tiles import ShardTiles
from pathology.data.split_data import SplitData
from pathology.data.tiles import Crop, ImageTiles, SlideTiles, TileOutcome
from pathology.data.truth import NONE
from pathology.errors import ManifestError
from pathology.stain import StainFolder

TileDataset = ImageTiles | SlideTiles | ShardTiles


class TileDataModule(SplitData):
    """Labelled tiles by split, from image files, straight from slides, or from packed shards.

    Args:
        manifest: CSV of image files (``path, label, split``), or of slides when ``tiles`` or
            ``shards`` is given (``slide_id, path, split``).
        classes: class names, in the order of the model's logits.
        outcome: ``classes``, one per tile, or, of image files, ``labels``: any number, joined by
            ``;`` in the manifest, where a tile without any says ``none``.
        tiles: folder of labelled tile tables, one per slide.
        shards: folder that ``pathology pack`` wrote; the manifest's slide files may be elsewhere.
        stains: folder that ``pathology stain`` wrote, to normalise tiles of slides by.
        root: folder that the manifest's paths are relative to; its own when omitted, or of tiles
            its folder ``images`` where they are there instead.
        path_column: column of a tile manifest that holds the image's path; ``path`` or ``file``
            when omitted.
        size_px: side that image files are resized to; slides are read at their grid's size.
        dense_halo_px: for dense evaluation, in which a tile's logit comes from what lies inside a
            halo (:mod:`bcos_vit.models.dense`): pixels around each tile on each side, at least
            what the network needs. They are read from the slides with ``tiles``; image files show
            them already, and are ``size_px + 2 * dense_halo_px`` wide. Labels are those of the
            tile inside.
        crop: what becomes of image files that are not square: none refuses them, centre keeps the
            largest square in their middle.
        batch_size: tiles per step.
        num_workers: reading processes; one per core of each device's share, up to 8, when omitted.
        multiprocessing_context: how they are started: fork, spawn or forkserver; the system's way
            when omitted.
        augment: what is done to training tiles on the model's device: a name, or strengths, see
            ``batch_augmentation``.
        balance: what is drawn equally often while training: none, class, slide or patient; with
            class+slide or class+patient, within each class. ``true`` is class. Of labels each set
            of them that occurs is a class.
        stretch: tiles drawn together from one place of a slide, so that open files and decoded
            pixels are used again; 1 shuffles everything.
    """

    def __init__(
        self,
        manifest: str,
        classes: list[str],
        tiles: str | None = None,
        shards: str | None = None,
        stains: str | None = None,
        root: str | None = None,
        path_column: str | None = None,
        size_px: int | None = None,
        crop: Crop = "none",
        batch_size: int = 64,
        num_workers: int | None = None,
        multiprocessing_context: str | None = None,
        augment: Augment | Augmentation = "turns+colour",
        balance: bool | Balance = "none",
        stretch: int = STRETCH,
        outcome: TileOutcome = "classes",
        dense_halo_px: int | None = None,
    ) -> None:
        super().__init__(num_workers, multiprocessing_context)
        if outcome not in get_args(TileOutcome):
            raise ValueError(f"outcome of tiles must be classes or labels, got {outcome!r}")
        if len(set(classes)) != len(classes) or len(classes) < 2 - (outcome == "labels"):
            least = "two different names" if outcome == "classes" else "one name"
            raise ValueError(f"classes must be at least {least}, got {classes}")
        if outcome == "labels":
            if tiles is not None or shards is not None:
                raise ValueError("tiles of slides have one class each; labels are of image files")
            if any(name == NONE or ";" in name for name in classes):
                raise ValueError(f"labels must not be called {NONE} nor hold ;, got {classes}")
        if batch_size < 1 or (num_workers is not None and num_workers < 0) or stretch < 1:
            raise ValueError(
                "batch_size and stretch must be positive and num_workers at least 0,"
                f" got {batch_size}, {stretch} and {num_workers}"
            )
        if isinstance(balance, bool):
            balance = "class" if balance else "none"
        if balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(BALANCES)}; got {balance!r}")
        if crop not in get_args(Crop):
            raise ValueError(f"crop must be one of {', '.join(get_args(Crop))}; got {crop!r}")
        if tiles is not None and shards is not None:
            raise ValueError(f"give tiles or shards, not both; got {tiles!r} and {shards!r}")
        if dense_halo_px is not None:
            if dense_halo_px < 1:
                raise ValueError(f"dense_halo_px must be at least 1, got {dense_halo_px}")
            if shards is not None:
                raise ValueError(
                    f"packed tiles have no halo, dense_halo_px is {dense_halo_px}; give tiles, to"
                    " read it from the slides"
                )
            if tiles is None and size_px is None:
                raise ValueError(
                    "dense_halo_px with image files needs size_px, the tile's own side"
                )
        if stains is not None and tiles is None and shards is None:
            raise ValueError("stains are of slides: give tiles or shards, too")
        self.manifest, self.tiles, self.shards, self.root = manifest, tiles, shards, root
        self.stains = stains
        self.classes, self.path_column, self.size_px = classes, path_column, size_px
        self.outcome, self.dense_halo_px = outcome, dense_halo_px
        self.crop = crop
        self.batch_size = batch_size
        self.augment, self.balance, self.stretch = augment, balance, stretch
        self._augmentation = batch_augmentation(augment)
        self._datasets: dict[str, TileDataset] = {}

    def table(self) -> pd.DataFrame:
        """The checked manifest."""
        if self.shards is not None:
            return read_slide_manifest(self.manifest, root=self.root, files=False)
        if self.tiles is not None:
            return read_slide_manifest(self.manifest, root=self.root)
        return read_tile_manifest(self.manifest, root=self.root, path_column=self.path_column)

    def setup(self, stage: str) -> None:
        """Check the manifest and index what the stage needs.

        Raises:
            ManifestError: a split that is needed has no tiles, or none of some class.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, (stage,)):
            self._check_classes(self.dataset(split), split)

    def dataset(self, split: str) -> TileDataset:
        """The tiles of a split as they are; indexed on first use.

        Raises:
            ValueError: no such split.
            ManifestError: it has no tiles.
        """
        if split not in self._datasets:
            self._datasets[split] = self._index(self.rows(split), split)
        return self._datasets[split]

    def rows(self, split: str) -> pd.DataFrame:
        """The manifest's rows of a split, or ``all`` of them, numbered from 0.

        Raises:
            ValueError: no such split.
            ManifestError: the manifest has no splits.
        """
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split must be one of {', '.join((*SPLITS, 'all'))}; got {split!r}")
        table = self.table()
        if split == "all":
            return table
        if "split" not in table:
            raise ManifestError(
                f"{self.manifest}: column 'split' is missing; got {', '.join(table.columns)}"
            )
        return table[table["split"] == split].reset_index(drop=True)

    def truth(self, split: str) -> pd.DataFrame:
        """What is known of the tiles of a split, a row each in the order of ``loader(split)``.

        Returns:
            ``name``: the image's path in its folder, with ``#`` and its place in an array of
            images, or ``slide_id#x,y`` in level-0 pixels, of shards its place in them; ``label``:
            the class, or labels joined by ``;``; the manifest's other columns.
        """
        dataset, table = self.dataset(split), self.rows(split)
        if isinstance(dataset, ImageTiles):
            folder = Path(self.manifest).parent if self.root is None else Path(self.root)
            names = [_inside(name, folder) for name in image_names(table)]
        else:
            table = table.iloc[dataset.owner].reset_index(drop=True)
            names = [f"{row}#{at}" for row, at in zip(table["slide_id"], _at(dataset), strict=True)]
        if self.outcome == "labels":
            labels = [
                ";".join(name for name, there in zip(self.classes, row, strict=True) if there)
                for row in dataset.labels
            ]
        else:
            labels = [self.classes[i] for i in dataset.labels]
        others = table.drop(columns=["label", "path", "name", "regions"], errors="ignore")
        return pd.concat([pd.DataFrame({"name": names, "label": labels}), others], axis=1)

    def class_shares(self) -> NDArray[np.float64]:
        """Share ``(classes,)`` of the tiles that training draws which show each class."""
        dataset = self.dataset("train")
        labels = np.asarray(dataset.labels)
        shown = labels if labels.ndim == 2 else np.eye(len(self.classes))[labels]
        weights = self._weights("train", dataset)
        shares: NDArray[np.float64] = np.average(shown.astype(np.float64), 0, weights)
        return shares

    def _index(self, table: pd.DataFrame, split: str) -> TileDataset:
        if table.empty:
            raise ManifestError(f"{self.manifest}: no row has split {split!r}")
        dataset: TileDataset
        halo_px = self.dense_halo_px or 0
        if self.shards is not None:
            dataset = ShardTiles(table, Path(self.shards), self.classes, stains=self.stains)
        elif self.tiles is not None:
            dataset = SlideTiles(
                table, Path(self.tiles), self.classes, stains=self.stains, halo_px=halo_px
            )
        else:
            dataset = ImageTiles(
                table,
                self.classes,
                self.size_px,
                crop=self.crop,
                outcome=self.outcome,
                halo_px=halo_px,
            )
        return dataset

    def _check_classes(self, dataset: TileDataset, split: str) -> None:
        """Refuse tiles that say nothing of a class: a metric over it would mean nothing."""
        where = f"{self.manifest}: " + ("no" if split == "all" else f"split {split!r} has no")
        labels = np.asarray(dataset.labels)
        if self.outcome == "labels":
            counts = labels.sum(0)
            for what, there in (("with", counts), ("without", len(labels) - counts)):
                if not there.all():
                    raise ManifestError(
                        f"{where} tile {what} label {self.classes[int(there.argmin())]!r}; add"
                        " some, or take the label off the classes"
                    )
            return
        counts = np.bincount(labels, minlength=len(self.classes))
        if not counts.all():
            raise ManifestError(
                f"{where} tile of class {self.classes[int(counts.argmin())]!r}; add some, or"
                " correct the classes"
            )

    def digest(self) -> str:
        """SHA-256 over manifest, tile tables or shards, and stains: what a run is made from."""
        content = hashlib.sha256(Path(self.manifest).read_bytes())
        folder = self.tiles or self.shards
        if folder is not None:
            for name in self.table()["slide_id"]:
                path = Path(folder) / f"{name}.parquet"
                content.update(path.read_bytes() if path.is_file() else b"none")
        if self.stains is not None:
            content.update(StainFolder(self.stains).digest(self.table()["slide_id"]).encode())
        return content.hexdigest()

    def loader(self, split: str, training: bool = False) -> DataLoader:
        """Batches of ``{"image": uint8 (batch, 3, h, w), "label": (batch,)}``.

        Where tiles have any number of labels, these are float ``(batch, classes)``.

        Each tile once and in the manifest's order, unless for training: then shuffled or balanced,
        and without a last batch that is too small. On several devices Lightning gives all equally
        many tiles: while training, validation counts up to one a device twice (`pathology evaluate`
        counts each once).
        """
        dataset = self.dataset(split)
        options: dict[str, Any] = {"batch_size": self.batch_size} | self.reading()
        if not training:
            return DataLoader(dataset, **options)
        sampler = self.sampler(split, dataset)
        return TileLoader(
            dataset, sampler=sampler, drop_last=len(sampler) > self.batch_size, **options
        )

    def on_after_batch_transfer(
        self, batch: dict[str, torch.Tensor], dataloader_idx: int
    ) -> dict[str, torch.Tensor]:
        """Augment a batch of training on the device it was moved to."""
        trainer = self.trainer
        if trainer is None or not trainer.training or self.augment == "none":
            return batch
        # A resumed run repeats what an uninterrupted one sees.
        return batch | {"image": self._augmentation(batch["image"], self.generator())}

    def sampler(self, split: str, dataset: TileDataset) -> TileSampler:
        """What an epoch of training shows, and in which order; seeded by ``seed_everything``.

        Raises:
            ManifestError: the manifest lacks the column to balance by.
        """
        places: dict[str, Any]
        if isinstance(dataset, ImageTiles):
            places = {"slides": dataset.file, "stretch": 1}
        else:
            places = {
                "slides": dataset.owner, "nearby": dataset.nearby(), "stretch": self.stretch
            }  # fmt: skip
        return TileSampler(
            **places,
            weights=self._weights(split, dataset),
            strata=_kinds(dataset),
            **self.shares(),
        )

    def _weights(self, split: str, dataset: TileDataset) -> NDArray[np.float64] | None:
        """How often each tile is drawn in relation to the others; None where each once."""
        by = set(self.balance.split("+"))
        if by == {"none"}:
            return None
        kinds = _kinds(dataset)
        classes = kinds if "class" in by else np.zeros(len(kinds), np.int64)
        return draw_weights(classes, self._groups(split, dataset, by))

    def _groups(self, split: str, dataset: TileDataset, by: set[str]) -> NDArray[np.integer] | None:
        """Slide or patient of each tile."""
        column = "slide_id" if "slide" in by else "patient_id" if "patient" in by else None
        if column is None:
            return None
        table = self.rows(split)
        if column not in table:
            raise ManifestError(
                f"{self.manifest}: column {column!r} is missing; balance {self.balance} needs it"
            )
        # Rows that name none stand alone.
        names = [name or f"row {i}" for i, name in enumerate(table[column])]
        groups = pd.factorize(pd.Series(names))[0]
        return groups if isinstance(dataset, ImageTiles) else groups[dataset.owner]


def _kinds(dataset: TileDataset) -> NDArray[np.integer]:
    """Class, or set of labels, of each tile."""
    labels = np.asarray(dataset.labels)
    if labels.ndim == 1:
        return labels
    kinds: NDArray[np.integer] = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    return kinds


def _at(dataset: SlideTiles | ShardTiles) -> list[str]:
    """Where each tile is on its slide, or in its shards."""
    if isinstance(dataset, SlideTiles):
        return [f"{x:g},{y:g}" for x, y in zip(dataset.x, dataset.y, strict=True)]
    owner = pd.Series(dataset.owner)
    return list(owner.groupby(owner).cumcount().astype(str))


def _inside(name: str, folder: Path) -> str:
    """A path as seen from the folder that it is in, or as it is."""
    return Path(name).relative_to(folder).as_posix() if Path(name).is_relative_to(folder) else name
