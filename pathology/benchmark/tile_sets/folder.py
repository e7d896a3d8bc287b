"""Tiles of one's own: a manifest of image files, with masks where there are any."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pathology.benchmark.tile_sets.grouping import share_out
from pathology.benchmark.tile_sets.tile_set import SPLITS
from pathology.benchmark.tile_sets.writing import Tile
from pathology.data.image_files import read_image, split_name
from pathology.data.manifest import image_root, read_tile_manifest
from pathology.errors import ManifestError

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class FolderTiles:
    """Makes a set of the image files that a manifest lists, resized to one side.

    Args:
        path: manifest (``path,label,split[,patient_id,mask]``), or the folder that has
            ``manifest.csv``.
        classes: in the order of a model's logits.
        size_px: side that square images are resized to (bicubic, antialiased; masks by area).
        root: folder that paths are relative to; the manifest's own, or its folder ``images``, when
            omitted.
        columns: names in the manifest of columns that are called otherwise here, e.g.
            ``{patient_id: segment}``.
        splits: what its splits become, e.g. ``{val: test}`` where the manifest has no test.
        val_share: share of the training tiles, by patient, that becomes val where there is none.
        tiles: most tiles by split, drawn at random; all when omitted.
        positive: class whose evidence the masks show; of two classes the second, when omitted.
            Where there is a column ``mask``, each tile of that class needs one: an image of the
            tile's size, other than 0 where the evidence is. Tiles of other classes have none.
        seed: of draws.
    """

    path: str
    classes: tuple[str, ...]
    size_px: int
    root: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    val_share: float = 0.15
    tiles: Mapping[str, int] | None = None
    positive: str | None = None
    seed: int = 0

    kind: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        if isinstance(self.classes, str):
            raise ValueError(f"classes must be a list of names, got {self.classes!r}")
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(set(self.classes)) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be two or more different names, got {self.classes}")
        if self.positive is None and len(self.classes) == 2:
            object.__setattr__(self, "positive", self.classes[1])
        if self.positive not in (None, *self.classes):
            raise ValueError(
                f"positive must be one of {', '.join(self.classes)}, got {self.positive!r}"
            )
        if self.size_px < 8 or not 0 < self.val_share < 1:
            raise ValueError(
                f"size_px must be at least 8 and val_share between 0 and 1; got {self.size_px} and"
                f" {self.val_share}"
            )
        unknown = {*self.splits.values(), *(self.tiles or {})} - set(SPLITS)
        if unknown:
            raise ValueError(f"splits are {', '.join(SPLITS)}; got {sorted(unknown)[0]!r}")

    @property
    def manifest(self) -> Path:
        """The table."""
        path = Path(self.path)
        return path / "manifest.csv" if path.is_dir() else path

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks."""
        return ("evidence",) if "mask" in self._table() else ()

    def made_by(self) -> dict[str, Any]:
        """All that decides the tiles; files by their content, wherever they lie."""
        settings = asdict(self) | {"kind": self.kind, "version": 1}
        for name in ("path", "root"):
            settings.pop(name)
        content = hashlib.sha256()
        table = self._table()
        for name in ("path", "mask"):
            for file in dict.fromkeys(table.get(name, ())):
                content.update(split_name(file)[0].read_bytes() if file else b"none")
        content.update(table.drop(columns=["path", "mask"], errors="ignore").to_csv().encode())
        return settings | {"content": content.hexdigest()[:16]}

    def make(self, progress: Progress | None = None) -> Iterator[Tile]:
        """The tiles, those of a split drawn at random.

        Raises:
            ManifestError: the table or an image cannot be used.
        """
        table = self._table()
        rng = np.random.default_rng(self.seed)
        for split in SPLITS:
            rows = table[table["split"] == split]
            rows = rows.iloc[rng.permutation(len(rows))]
            rows = rows.iloc[: (self.tiles or {}).get(split, len(rows))]
            for done, row in enumerate(rows.to_dict("records")):
                yield self._tile({str(k): v for k, v in row.items()})
                if progress:
                    progress(split, done + 1, len(rows))

    def _tile(self, row: Mapping[str, str]) -> Tile:
        image = read_image(row["path"], row.get("index"))
        self._check_square(row["path"], image)
        masks = {}
        if "mask" in row:
            masks["evidence"] = self._mask(row, image.shape[:2])
        side = (self.size_px, self.size_px)
        resized = image
        if image.shape[:2] != side:
            resized = np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BICUBIC))
        # Files of one name may lie in several folders, and many images in one file.
        place = _place(row)
        name = f"{Path(row['path']).stem}_{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        others = {k: v for k, v in row.items() if k not in _OURS}
        return Tile(
            name, resized, row["label"], row["split"], row.get("patient_id") or name, masks, others
        )

    def _mask(self, row: Mapping[str, str], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        if not row["mask"]:
            if row["label"] == self.positive:
                raise ManifestError(
                    f"{self.manifest}: {row['path']} is {row['label']} and has no mask; give it"
                    " one, or leave out the column"
                )
            return np.zeros((self.size_px, self.size_px), bool)
        try:
            with Image.open(row["mask"]) as opened:
                mask = np.asarray(opened)
        except (OSError, UnidentifiedImageError) as error:
            raise ManifestError(f"{row['mask']}: not an image ({error}); restore it") from error
        if mask.shape != shape:
            raise ManifestError(
                f"{row['mask']}: of shape {mask.shape}, its image has {shape}; a mask has one"
                " channel and a value for each pixel"
            )
        on = Image.fromarray((mask > 0).astype(np.uint8) * 255)
        side = (self.size_px, self.size_px)
        return np.asarray(on.resize(side, Image.Resampling.BOX)) >= 128

    def _check_square(self, path: str, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        if height != width:
            raise ManifestError(
                f"{path}: tiles must be square, got {width} x {height} px; cut it first"
            )

    def _table(self) -> pd.DataFrame:
        """The checked manifest with our names of columns and splits, and a val."""
        table = self._read()
        if unknown := sorted(set(table["label"]) - set(self.classes)):
            raise ManifestError(
                f"{self.manifest}: label {unknown[0]!r} is not one of {', '.join(self.classes)}"
            )
        there = set(table["split"])
        if "test" not in there or "train" not in there:
            raise ManifestError(
                f"{self.manifest}: has splits {', '.join(sorted(there))}, wanted train and test;"
                " say what becomes what, as in splits: {val: test}"
            )
        if "val" not in there:
            train = table.index[table["split"] == "train"]
            table.loc[train, "split"] = share_out(
                [_owner(row) for row in table.loc[train].to_dict("records")],
                list(table["label"][train]),
                {"train": 1 - self.val_share, "val": self.val_share},
                self.seed,
            )
        return table

    def _read(self) -> pd.DataFrame:
        if not self.manifest.is_file():
            raise ManifestError(f"{self.manifest}: no such manifest; give the path of a CSV file")
        theirs = {name: ours for ours, name in self.columns.items()}
        told = pd.read_csv(self.manifest, dtype=str, keep_default_na=False)
        if missing := sorted(set(theirs) - set(told.columns)):
            raise ManifestError(
                f"{self.manifest}: column {missing[0]!r} is missing; got {', '.join(told.columns)}"
            )
        told = told.drop(columns=[n for n in theirs.values() if n in told and n not in theirs])
        told = told.rename(columns=theirs).rename(columns={"file": "path"})
        root = self.root or image_root(self.manifest, told.get("path", ()))
        if "mask" in told:
            told["mask"] = [str(Path(root) / name) if name else "" for name in told["mask"]]
        told["path_told"] = told.get("path", "")
        if "split" not in told:
            raise ManifestError(f"{self.manifest}: column 'split' is missing")
        told["split"] = told["split"].replace(dict(self.splits))
        # Checked as every manifest of tiles, under the names that it has here.
        with tempfile.TemporaryDirectory() as scratch:
            renamed = Path(scratch) / "manifest.csv"
            told.to_csv(renamed, index=False)
            try:
                table = read_tile_manifest(renamed, root=root)
            except ManifestError as error:
                text = str(error).replace(str(renamed), str(self.manifest))
                raise type(error)(text) from error
        lost = [mask for mask in table.get("mask", ()) if mask and not Path(mask).is_file()]
        if lost:
            raise ManifestError(
                f"{self.manifest}: {len(lost)} of {len(table)} masks are missing: {lost[0]};"
                " restore them, or leave the cell empty where a tile has no evidence"
            )
        return table


def _owner(row: Mapping[Any, Any]) -> str:
    """What must not be torn apart: the patient where known, else the tile."""
    return str(row.get("patient_id") or _place(row))


def _place(row: Mapping[Any, Any]) -> str:
    return f"{row['path_told']}#{row.get('index', '')}"


_OURS = {"path", "index", "path_told", "label", "split", "patient_id", "mask"}
