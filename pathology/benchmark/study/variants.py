"""The same network trained another way: on shuffled labels, deleted cells, other patients.

A variant is a tile set of its own beside the one that it was made of, and for deleted cells a
training that starts from the first one's weights, all but the head's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.tile_sets import Examples, TileSet
from pathology.benchmark.tile_sets.writing import Tile, found_set, write_set
from pathology.map_quality.replacement import Fill, glass_colour, make_fill
from pathology.map_quality.single_deletion import delete_cells, draw_cells
from pathology.tasks.checkpoint import Run

SHUFFLED = "shuffled"
DELETED = "deleted{cells}"
FOLD = "fold{fold}of{folds}"
VERSION = 1
COPIES = 2
"""Of each tile with deleted cells, beside the tile itself."""
ENOUGH = 200  # tiles to see glass on
SHORTER, SLOWER = 0.5, 0.3
"""Epochs and learning rate of a training that goes on, of those before."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to train.

    Args:
        name: ``shuffled``, ``deleted4`` (cells along each side), ``fold0of4``.
    """

    name: str

    @property
    def goes_on(self) -> bool:
        """Whether its training starts from the plain one's weights."""
        return self.name.startswith("deleted")

    def make(self, plain: TileSet, folder: Path, seed: int) -> TileSet:
        """Its tile set, made where it is not there yet.

        Args:
            plain: that it is made of.
            folder: where it goes.
            seed: of what is drawn.
        """
        made_by = {"variant": self.name, "of": plain.stamp, "seed": seed, "version": VERSION}
        found = found_set(folder, made_by)
        if found is not None:
            return found
        return write_set(
            folder, made_by, plain.classes, plain.size_px, plain.positive, (),
            self._tiles(plain, np.random.default_rng([seed, 77])),
        )  # fmt: skip

    def _tiles(self, plain: TileSet, rng: np.random.Generator) -> Iterator[Tile]:
        for split in ("train", "val", "test"):
            examples = plain.split(split)
            labels = [plain.classes[i] for i in examples.labels]
            if self.name == SHUFFLED and split != "test":
                labels = [labels[i] for i in rng.permutation(len(labels))]
            keep = np.ones(len(examples), bool)
            if self.name.startswith("fold") and split == "train":
                fold, folds = (int(word) for word in self.name.removeprefix("fold").split("of"))
                keep = fold_of(examples.patients, folds) != fold
            for i in np.flatnonzero(keep):
                yield Tile(examples.names[i], examples.images[i], labels[i], split,
                           examples.patients[i])  # fmt: skip
            if self.goes_on and split != "test":
                yield from self._deleted(plain, examples, split, rng)

    def _deleted(
        self, plain: TileSet, examples: Examples, split: str, rng: np.random.Generator
    ) -> Iterator[Tile]:
        cells, glass = int(self.name.removeprefix("deleted")), deleted_glass(plain)
        for copy in range(COPIES):
            for image, label, name, patient in zip(
                examples.images, examples.labels, examples.names, examples.patients, strict=True
            ):
                holed = delete_cells(image, draw_cells(rng, cells), glass)
                yield Tile(f"{name}_deleted{copy}", holed, plain.classes[label], split, patient)


def settings_going_on(settings: Mapping[str, Any], before: Run) -> dict[str, Any]:
    """Settings of a training that starts from another's weights.

    Args:
        settings: of both, under the verb's names.
        before: the other, which says what it took where ``settings`` do not.
    """
    told = before.settings()
    changed = dict(settings) | {"model.init_from": str(before.best)}
    if (told["trainer"].get("max_epochs") or 0) > 0:
        changed["trainer.max_epochs"] = math.ceil(SHORTER * told["trainer"]["max_epochs"])
    changed["model.lr"] = SLOWER * told["model"]["lr"]
    changed["model.warmup_epochs"] = SHORTER * told["model"]["warmup_epochs"]
    if told["model"].get("bcosify_epochs") is not None:
        changed["model.bcosify_epochs"] = 0  # its weights are converted
    return changed


@lru_cache(maxsize=4)
def deleted_glass(plain: TileSet) -> Fill:
    """What deleted cells become, in training and in measuring alike: the set's own glass."""
    some = plain.table[plain.table["split"] == "train"].head(ENOUGH)
    images = replace(plain, table=some).split("train").images[:ENOUGH]
    return make_fill("glass", colour=glass_colour(images.astype(np.float32) / 255))


def fold_of(patients: Sequence[str], folds: int) -> NDArray[np.int64]:
    """``(n,)`` the fold of each tile, by patient; sizes differ by a patient at most.

    Raises:
        ValueError: fewer patients than folds.
    """
    names = np.unique(np.array(patients))
    if len(names) < folds:
        raise ValueError(f"{folds} folds need as many patients, got {len(names)}")
    order = np.random.default_rng(0).permutation(len(names))
    place = {str(names[i]): turn % folds for turn, i in enumerate(order)}
    return np.array([place[name] for name in patients], np.int64)
