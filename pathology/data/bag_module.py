"""The data module of slides and patients: bags of tiles by split."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from monai.data import DataLoader

from pathology.data.augment import Augment, Augmentation, batch_augmentation
from pathology.data.bag_sampler import BagSampler
from pathology.data.bags import Bags, FeatureBags, TileBags, pad_bags
from pathology.data.features import FeatureFolder, FeatureStamp, feature_path, read_stamp
from pathology.data.grids import grid_path
from pathology.data.loader import TileLoader
from pathology.data.manifest import SPLITS, read_slide_manifest
from pathology.data.samplers import draw_weights
from pathology.data.split_data import SplitData, seed
from pathology.data.tiles import SlideTiles
from pathology.data.truth import BagOf, Columns, OutcomeName, Truth, read_truth
from pathology.errors import ManifestError
from pathology.stain import StainFolder

BagBalance = Literal["none", "class", "patient", "class+patient"]

MOST_FEATURES = 4096  # of a bag while training: more seldom help, and a batch has to fit
MOST_TILES = 64  # the same of tiles read as pixels, whose encoder is trained, too


class BagDataModule(SplitData):
    """Bags of tiles by split, of slides or of patients, with what is to be predicted of them.

    Give ``features`` (quick: an encoder has seen each tile once), or ``tiles`` to read pixels and
    train an encoder, too.

    Args:
        manifest: CSV of slides: ``slide_id, path, split`` and what is to be predicted.
        classes: names of classes, labels or grades (from the lowest up), in the order of the
            model's logits; none for survival.
        features: folder that ``pathology features`` wrote; the slides themselves may be elsewhere.
        tiles: folder of tile tables that ``pathology tile`` wrote.
        outcome: what is predicted: ``classes`` (one of them), ``labels`` (any of them, several
            joined by ``;``, none called ``none``), ``grades`` (ordered; names, or numbers from 0),
            ``cox`` or ``hazard`` (survival).
        label_column: of classes, labels or grades; ``label`` when omitted, of grades ``grade`` if
            there is one.
        time_column: of survival: time to the event or until last seen, over 0, in any unit.
        event_column: of survival: 1 where the event was seen, 0 where not.
        bag: a bag for every slide, or for every patient, of all slides of that patient.
        skip_unlabelled: leave slides out of which nothing is known; otherwise they are an error.
        stains: with ``tiles``, folder that ``pathology stain`` wrote, to normalise them by.
        root: folder that the manifest's paths are relative to; its own when omitted.
        max_tiles: tiles of a bag at most while training, drawn anew each time it is shown; 4,096
            features or 64 tiles when omitted.
        max_eval_tiles: tiles of a bag at most in evaluation, evenly over it; all when omitted.
        tile_dropout: share of a bag's tiles left out while training, at least.
        batch_size: bags per step of training. In evaluation they come one by one.
        num_workers: reading processes; one per core of each device's share, up to 8, when omitted.
        multiprocessing_context: how they are started: fork, spawn or forkserver; the system's way
            when omitted.
        augment: with ``tiles``, what is done to training tiles on the model's device, see
            ``batch_augmentation``.
        balance: what is drawn equally often while training: none, class, patient, or
            class+patient; of grades and labels each grade or set of labels is a class, of survival
            whether the event was seen.

    Raises:
        ValueError: an argument out of range, or that does not go with the others.
    """

    def __init__(
        self,
        manifest: str,
        classes: list[str] | None = None,
        features: str | None = None,
        tiles: str | None = None,
        outcome: OutcomeName = "classes",
        label_column: str | None = None,
        time_column: str = "time",
        event_column: str = "event",
        bag: BagOf = "slide",
        skip_unlabelled: bool = False,
        stains: str | None = None,
        root: str | None = None,
        max_tiles: int | None = None,
        max_eval_tiles: int | None = None,
        tile_dropout: float = 0.0,
        batch_size: int = 8,
        num_workers: int | None = None,
        multiprocessing_context: str | None = None,
        augment: Augment | Augmentation = "turns+colour",
        balance: BagBalance = "none",
    ) -> None:
        super().__init__(num_workers, multiprocessing_context)
        if (features is None) == (tiles is None):
            raise ValueError(f"give either features or tiles; got {features!r} and {tiles!r}")
        if stains is not None and tiles is None:
            raise ValueError(
                "stains are of pixels: normalise when features are made, or give tiles"
            )
        for name, value in (("max_tiles", max_tiles), ("max_eval_tiles", max_eval_tiles)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if batch_size < 1 or (num_workers is not None and num_workers < 0):
            raise ValueError(
                "batch_size must be positive and num_workers at least 0, got"
                f" {batch_size} and {num_workers}"
            )
        if not 0 <= tile_dropout < 1:
            raise ValueError(f"tile_dropout must be in [0, 1), got {tile_dropout}")
        for what, word, known in (("bag", bag, BagOf), ("balance", balance, BagBalance)):
            if word not in get_args(known):
                raise ValueError(
                    f"{what} must be one of {', '.join(get_args(known))}; got {word!r}"
                )
        self.classes: list[str] = list(classes or [])
        self.outcome = outcome
        self.columns = Columns(outcome, self.classes, label_column, time_column, event_column)
        self.manifest, self.features, self.tiles, self.root = manifest, features, tiles, root
        self.bag, self.skip_unlabelled, self.stains = bag, skip_unlabelled, stains
        self.max_tiles = max_tiles or (MOST_FEATURES if features is not None else MOST_TILES)
        self.max_eval_tiles, self.tile_dropout = max_eval_tiles, tile_dropout
        self.batch_size = batch_size
        self.augment, self.balance = augment, balance
        self._augmentation = batch_augmentation(augment)
        self._truths: dict[str, Truth] = {}
        self._datasets: dict[str, Bags] = {}

    # --- what there is ---------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """The checked manifest."""
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        # Of slides whose features are there the files are not needed.
        return read_slide_manifest(self.manifest, root=self.root, files=self.tiles is not None)

    def rows(self, split: str) -> pd.DataFrame:
        """The manifest's rows of a split (``all`` for all of them), numbered from 0.

        Raises:
            ValueError: no such split.
            ManifestError: the manifest has no splits.
        """
        return self._rows(split).reset_index(drop=True)

    def _rows(self, split: str) -> pd.DataFrame:
        """The same, numbered as in the file."""
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split must be one of {', '.join((*SPLITS, 'all'))}; got {split!r}")
        if split == "all":
            return self._table
        if "split" not in self._table:
            raise ManifestError(f"{self.manifest}: column 'split' is missing")
        rows = self._table[self._table["split"] == split]
        if rows.empty:
            raise ManifestError(f"{self.manifest}: no row has split {split!r}")
        return rows

    def truth(self, split: str) -> pd.DataFrame:
        """What is known of the bags of a split, a row each in the order of ``loader(split)``.

        Returns:
            ``name`` (slide or patient), then ``label`` (of ``labels`` several joined by ``;``),
            ``grade`` (from 0), or ``time`` and ``event``; the manifest's other columns.

        Raises:
            ManifestError: the manifest does not say, or contradicts itself.
        """
        return self._truth(split).table.copy()

    def _truth(self, split: str) -> Truth:
        if split not in self._truths:
            self._truths[split] = read_truth(
                self.manifest, self._rows(split), self.columns, self.bag, self.skip_unlabelled
            )
        return self._truths[split]

    def dataset(self, split: str) -> Bags:
        """The bags of a split; indexed on first use.

        Raises:
            ManifestError: features or tile tables are missing, or a bag has no tiles.
            StampMismatchError: features of different encoders, tiles of different kinds.
        """
        if split not in self._datasets:
            self._datasets[split] = self._index(split)
        return self._datasets[split]

    def _index(self, split: str) -> Bags:
        truth = self._truth(split)
        used = [slide for bag in truth.slides for slide in bag]
        number = {slide: i for i, slide in enumerate(used)}
        slides = [[number[slide] for slide in bag] for bag in truth.slides]
        rows = self.rows(split).iloc[used].reset_index(drop=True)
        options: dict[str, Any] = {
            "most": self.max_tiles,
            "most_whole": self.max_eval_tiles,
            "dropout": self.tile_dropout,
            "seed": seed(),
        }
        names = list(truth.table["name"])
        if self.features is not None:
            folder = FeatureFolder(self.features, rows["slide_id"])
            return FeatureBags(folder, slides, names, truth.targets, **options)
        assert self.tiles is not None
        tiles = SlideTiles(rows, self.tiles, None, stains=self.stains)
        return TileBags(tiles, slides, names, truth.targets, **options)

    @property
    def in_features(self) -> int | None:
        """Numbers per tile; None for pixels."""
        data = self._any()
        return data.folder.dims if isinstance(data, FeatureBags) else None

    def made_of(self) -> dict[str, Any]:
        """What made the bags, in plain values: a model trained on them takes no others."""
        data = self._any()
        if isinstance(data, FeatureBags):
            return {"features": data.folder.kind.to_dict()}
        target = StainFolder(self.stains).target.digest() if self.stains else None
        return {"tiles": data.spec.to_dict(), "stain": target}

    def origin(self) -> dict[str, Any]:
        """The kind of tiles, as runs note it; ``stain`` is of tiles that are read as pixels."""
        spec = self._any().spec
        kind = {"size_px": spec.size_px, "mpp": spec.mpp, "colour": spec.colour}
        return kind | {"stain": self.made_of().get("stain")}

    def _any(self) -> Bags:
        """Bags of some split that is there."""
        if self._datasets:
            return next(iter(self._datasets.values()))
        return self.dataset("train" if "split" in self._table else "all")

    def digest(self) -> str:
        """SHA-256 over manifest, features or tile tables, and stains: what a run is made from."""
        table = self._table
        content = hashlib.sha256(Path(self.manifest).read_bytes())
        if self.features is not None:
            known: dict[str, FeatureStamp] = {}
            for bags in self._datasets.values():
                assert isinstance(bags, FeatureBags)
                known |= bags.folder.stamps
            # Of slides that no split used so far there may be neither features nor labels.
            for slide_id in table["slide_id"]:
                path = feature_path(self.features, slide_id)
                if slide_id not in known and path.is_file():
                    known[slide_id] = read_stamp(path)[0]
                stamp = known.get(slide_id)
                content.update(stamp.digest().encode() if stamp else b"none")
        else:
            assert self.tiles is not None
            for record in table.to_dict("records"):
                path = grid_path(self.tiles, record)
                content.update(path.read_bytes() if path.is_file() else b"none")
        if self.stains is not None:
            content.update(StainFolder(self.stains).digest(table["slide_id"]).encode())
        return content.hexdigest()

    # --- loading ---------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check the manifest and index what the stage needs.

        Raises:
            ManifestError: a split that is needed has no bags, or teaches or measures nothing.
            StampMismatchError: bags of training and validation are of different kinds.
        """
        splits = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ())
        made = None
        for split in splits:
            bags = self.dataset(split)
            self._check_kinds(split)
            if isinstance(bags, FeatureBags):
                where = f"{self.features} (split {split})"
                if made is not None:
                    bags.folder.kind.check(where, made)
                made = bags.folder.kind

    def _check_kinds(self, split: str) -> None:
        """A metric over classes that are not there would be a number that means nothing."""
        truth, where = self._truth(split), f"{self.manifest}: split {split!r}"
        targets = truth.targets
        if "event" in targets:
            time, event = targets["time"], targets["event"] > 0
            if not event.any():
                raise ManifestError(f"{where} has no event: nothing can be learnt or measured")
            first = time[event].min()
            if not ((time > first) | ((time == first) & ~event)).any():
                raise ManifestError(
                    f"{where} has nobody who outlives the first event: nothing can be compared"
                )
            return
        if self.outcome == "grades":
            if len(targets["grade"].unique()) < 2:
                raise ManifestError(
                    f"{where} has a single grade: nothing can be learnt or measured"
                )
            return
        labels = targets["label"]
        if self.outcome == "classes":
            labels = torch.nn.functional.one_hot(labels, len(self.classes))
        for name, has in zip(self.classes, labels.T.bool(), strict=True):
            if not has.any() or has.all():
                kind = "only bags" if has.all() else "no bag"
                raise ManifestError(
                    f"{where} has {kind} of {name!r}; add others, or correct the classes"
                )

    def loader(self, split: str, training: bool = False) -> DataLoader:
        """Batches of bags, by name of what is in them.

        ``features`` ``(bags, tiles, dims)``, or ``image`` uint8 ``(bags, tiles, 3, height, width)``
        when read as pixels; ``present`` bool ``(bags, tiles)``, which of these there are;
        ``positions`` ``(bags, tiles, 2)``, their centres in micrometres; ``index`` ``(bags,)``, the
        row in ``truth(split)``; ``count`` ``(bags,)``, tiles of the whole bag; and what is to be
        predicted.

        Each bag once, by itself, whole and in the order of ``truth(split)``, unless for training.
        """
        bags = self.dataset(split)
        options: dict[str, Any] = {"collate_fn": pad_bags} | self.reading()
        if not training:
            return DataLoader(bags, batch_size=1, **options)
        sampler = self.sampler(split)
        return TileLoader(
            bags,
            sampler=sampler,
            batch_size=self.batch_size,
            drop_last=len(sampler) > self.batch_size,
            **options,
        )

    def sampler(self, split: str) -> BagSampler:
        """What an epoch of training shows, and in which order; seeded by ``seed_everything``.

        Raises:
            ManifestError: the manifest lacks the column to balance by.
        """
        kinds = self._truth(split).kinds
        by = set(self.balance.split("+"))
        groups = None
        if "patient" in by:
            table = self._truth(split).table
            if "patient_id" not in table:
                raise ManifestError(
                    f"{self.manifest}: column 'patient_id' is missing; balance {self.balance} needs"
                    " it"
                )
            # Rows that name none stand alone.
            names = [name or f"row {i}" for i, name in enumerate(table["patient_id"])]
            groups = pd.factorize(pd.Series(names))[0]
        classes = kinds if "class" in by else np.zeros(len(kinds), np.int64)
        return BagSampler(
            kinds,
            weights=None if by == {"none"} else draw_weights(classes, groups),
            **self.shares(),
        )

    def on_after_batch_transfer(
        self, batch: dict[str, torch.Tensor], dataloader_idx: int
    ) -> dict[str, torch.Tensor]:
        """Augment a batch of training tiles on the device it was moved to."""
        trainer = self.trainer
        if (
            trainer is None
            or not trainer.training
            or "image" not in batch
            or self.augment == "none"
        ):
            return batch
        # A resumed run repeats what an uninterrupted one sees.
        generator = self.generator()
        image = batch["image"].clone()
        image[batch["present"]] = self._augmentation(image[batch["present"]], generator)
        return batch | {"image": image}
