"""A tile set as it lies in a folder: ``set.json``, ``manifest.csv``, ``images`` and ``masks``."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pathology.errors import ManifestError

SPLITS = ("train", "val", "test")

MASK_BITS = {"evidence": 0, "region": 1, "confounder": 2, "other": 3}
"""Bits of mask images: what speaks for the positive class (its nuclei), the region of that class,
what was planted, and the like of the evidence that speaks for another class (normal nuclei)."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """The tiles of a split, in the manifest's order.

    Args:
        images: ``(n, h, w, 3)`` uint8.
        labels: ``(n,)`` index of the class, int64.
        names: of the files, unique in the set.
        patients: ``(n,)`` what is drawn as a whole by the bootstrap.
        masks: by name, see :data:`MASK_BITS`, ``(n, h, w)`` bool; those that the set has.
        columns: the manifest's other columns, one row per tile, as text: ``confounder``,
            ``stratum`` and ``base`` where something was planted.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    patients: tuple[str, ...]
    masks: dict[str, NDArray[np.bool_]]
    columns: pd.DataFrame

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Examples":
        """The tiles that an index or mask ``(n,)`` picks, in its order."""
        index = np.arange(len(self))[np.asarray(rows)]
        return Examples(
            self.images[index],
            self.labels[index],
            tuple(self.names[i] for i in index),
            tuple(self.patients[i] for i in index),
            {name: mask[index] for name, mask in self.masks.items()},
            self.columns.iloc[index].reset_index(drop=True),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TileSet:
    """A folder of labelled tiles, see :func:`load_tile_set`.

    Args:
        folder: where it lies.
        name: of the set.
        classes: in the order of a model's logits.
        size_px: side of its tiles.
        positive: the class whose evidence masks show; None where each mask shows the evidence of
            its tile's own class.
        masks: names of the masks that it has.
        stamp: fingerprint of all that decides its pixels and labels.
        table: the manifest, everything as text.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    size_px: int
    positive: str | None
    masks: tuple[str, ...]
    stamp: str
    table: pd.DataFrame

    @property
    def manifest(self) -> Path:
        """As ``pathology train --data.manifest`` reads it."""
        return self.folder / "manifest.csv"

    def split(self, name: str) -> Examples:
        """The tiles of a split.

        Raises:
            ValueError: no such split.
            ManifestError: it is empty, or a file is missing or of another size.
        """
        if name not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
        rows = self.table[self.table["split"] == name].reset_index(drop=True)
        if rows.empty:
            raise ManifestError(f"{self.manifest}: no row has split {name!r}")
        images = np.stack([self._read(path, "RGB") for path in rows["path"]])
        masks = {}
        if self.masks:
            bits = np.stack([self._read(path, "L") for path in rows["mask"]])
            masks = {mask: (bits >> MASK_BITS[mask] & 1).astype(bool) for mask in self.masks}
        places = {label: i for i, label in enumerate(self.classes)}
        return Examples(
            images,
            np.array([places[label] for label in rows["label"]], np.int64),
            tuple(Path(path).stem for path in rows["path"]),
            tuple(rows["patient_id"]),
            masks,
            rows.drop(columns=["path", "label", "split", "patient_id", "mask"], errors="ignore"),
        )

    def _read(self, path: str, mode: str) -> NDArray[np.uint8]:
        file = self.folder / path
        try:
            with Image.open(file) as image:
                if image.mode != mode or image.size != (self.size_px, self.size_px):
                    raise ManifestError(
                        f"{file}: {image.width} x {image.height} px of mode {image.mode}, wanted"
                        f" {self.size_px} px of mode {mode}; remove the set and make it again"
                    )
                return np.asarray(image)
        except (OSError, UnidentifiedImageError) as error:
            raise ManifestError(
                f"{file}: cannot be read ({error}); remove the set and make it again"
            ) from error


def load_tile_set(folder: str | Path) -> TileSet:
    """A tile set from its folder.

    Raises:
        ManifestError: there is none, or it is not whole.
    """
    folder = Path(folder)
    try:
        told = json.loads((folder / "set.json").read_text())
        table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
        loaded = TileSet(
            folder,
            str(told["name"]),
            tuple(told["classes"]),
            int(told["size_px"]),
            told["positive"],
            tuple(told["masks"]),
            str(told["stamp"]),
            table,
        )
    except FileNotFoundError as error:
        raise ManifestError(
            f"{folder}: not a tile set (no {Path(error.filename).name}); make it first"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{folder}: not a tile set ({error!r}); remove it and make it again"
        ) from error
    wanted = {"path", "label", "split", "patient_id", *(["mask"] if loaded.masks else [])}
    if missing := sorted(wanted - set(table.columns)):
        raise ManifestError(f"{loaded.manifest}: column {missing[0]!r} is missing")
    if unknown := sorted(set(table["label"]) - set(loaded.classes)):
        raise ManifestError(
            f"{loaded.manifest}: label {unknown[0]!r} is not one of {', '.join(loaded.classes)}"
        )
    return loaded
