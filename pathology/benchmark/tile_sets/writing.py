"""Writing a tile set: whole or not at all, once, and never over another."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathology.benchmark.tile_sets.tile_set import MASK_BITS, TileSet, load_tile_set
from pathology.errors import ManifestError, StampMismatchError
from pathology.outputs import complete_folder


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A tile on its way into a set.

    Args:
        name: unique in the set; its file's, without the ending.
        image: ``(size, size, 3)`` uint8.
        label: a class.
        split: train, val or test.
        patient: whose it is.
        masks: by name, ``(size, size)`` bool.
        columns: further columns of the manifest.
    """

    name: str
    image: NDArray[np.uint8]
    label: str
    split: str
    patient: str
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


def stamp_of(made_by: Mapping[str, Any]) -> str:
    """Fingerprint of what makes a set."""
    text = json.dumps(made_by, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def found_set(folder: Path, made_by: Mapping[str, Any]) -> TileSet | None:
    """The set that lies in ``folder`` already, if any.

    Raises:
        StampMismatchError: it is another one.
        ManifestError: something else is there.
    """
    if not folder.exists():
        return None
    found = load_tile_set(folder)
    if found.stamp != stamp_of(made_by):
        stored = json.loads((folder / "set.json").read_text()).get("made_by", {})
        keys = sorted(k for k in {*stored, *made_by} if stored.get(k) != _plain(made_by.get(k)))
        name = keys[0] if keys else "stamp"
        raise StampMismatchError(
            f"{folder}: holds a tile set made with {name} {stored.get(name)!r}, wanted"
            f" {_plain(made_by.get(name))!r}; choose another folder, or remove it"
        )
    return found


def write_set(
    folder: Path,
    made_by: Mapping[str, Any],
    classes: Sequence[str],
    size_px: int,
    positive: str | None,
    masks: Sequence[str],
    tiles: Iterable[Tile],
) -> TileSet:
    """Write a set under its name in one step.

    Args:
        folder: nothing is there yet.
        made_by: all that decides the set.
        classes: in the order of logits.
        size_px: side of the tiles.
        positive: class whose evidence the masks show.
        masks: names of masks that every tile has.
        tiles: in the manifest's order.

    Raises:
        OutputError: it cannot be written.
        ManifestError: a split lacks a class, or a name is there twice.
        ValueError: a tile that is none of this set.
    """
    rows: list[dict[str, str]] = []
    with complete_folder(folder) as scratch:
        for part in ("images", *(["masks"] if masks else [])):
            (scratch / part).mkdir()
        for tile in tiles:
            if tile.image.shape != (size_px, size_px, 3) or set(tile.masks) != set(masks):
                raise ValueError(
                    f"tile {tile.name}: shape {tile.image.shape} with masks {sorted(tile.masks)},"
                    f" wanted {(size_px, size_px, 3)} with {sorted(masks)}"
                )
            row = {"path": f"images/{tile.name}.png", "label": tile.label, "split": tile.split}
            row["patient_id"] = tile.patient
            Image.fromarray(tile.image).save(scratch / row["path"], compress_level=1)
            if masks:
                row["mask"] = f"masks/{tile.name}.png"
                bits = np.zeros((size_px, size_px), np.uint8)
                for name, mask in tile.masks.items():
                    bits |= mask.astype(np.uint8) << MASK_BITS[name]
                Image.fromarray(bits).save(scratch / row["mask"], compress_level=1)
            rows.append(row | dict(tile.columns))
        _check(folder, rows, classes)
        (scratch / "manifest.csv").write_text(_csv(rows))
        told = {
            "name": folder.name,
            "classes": list(classes),
            "size_px": size_px,
            "positive": positive,
            "masks": {name: MASK_BITS[name] for name in masks},
            "stamp": stamp_of(made_by),
            "made_by": _plain(made_by),
        }
        (scratch / "set.json").write_text(json.dumps(told, indent=1) + "\n")
    return load_tile_set(folder)


def _check(folder: Path, rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> None:
    paths = [row["path"] for row in rows]
    if len(set(paths)) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise ManifestError(f"{folder}: two tiles are called {twice}; give each its own name")
    for split in ("train", "val", "test"):
        for name in classes:
            if not any(row["split"] == split and row["label"] == name for row in rows):
                raise ManifestError(
                    f"{folder}: split {split!r} would have no tile of class {name!r}; ask for more"
                    " tiles, or correct classes and splits"
                )


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))
