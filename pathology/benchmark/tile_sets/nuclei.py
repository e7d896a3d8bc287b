"""Tiles with and without nuclei, cut out of images with a mask for each nucleus.

Made for the stained images of the Data Science Bowl 2018 (Caicedo et al., Nature Methods 2019),
which are crops of a few slides that nobody names. Images of one look are therefore taken for one
patient: those whose means and standard deviations of red, green and blue are near each other.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.cluster.hierarchy import fcluster, linkage

from pathology.benchmark.tile_sets.grouping import share_out
from pathology.benchmark.tile_sets.tile_set import SPLITS
from pathology.benchmark.tile_sets.writing import Tile
from pathology.data.image_files import read_image
from pathology.errors import ManifestError

Progress = Callable[[str, int, int], None]

DEFAULT_SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


@dataclass(frozen=True, slots=True)
class NucleiTiles:
    """Makes tiles ``none`` and ``nuclei``, equally many of each in every split.

    What is between the shares of nuclei is left out. Mask ``evidence``: nuclei.

    Args:
        path: folder of ``images`` and ``labels``, files of one name: RGB, and a number for each
            nucleus, 0 where there is none.
        size_px: side of the tiles; they are cut side by side, at the images' own scale.
        most_none: share of nuclei up to which a tile has none.
        least_nuclei: share from which on it has some.
        most_nuclei: tiles with more are left out: nothing in them could be pointed at wrongly.
        shares: of tiles by split.
        tiles: most tiles by split; all when omitted.
        alike: distance of looks, in grey levels, up to which images are of one patient.
        seed: of draws.
    """

    path: str
    size_px: int = 64
    most_none: float = 0.01
    least_nuclei: float = 0.15
    most_nuclei: float = 0.6
    shares: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    tiles: Mapping[str, int] | None = None
    alike: float = 10.0
    seed: int = 0

    kind: ClassVar[str] = "nuclei"
    classes: ClassVar[tuple[str, ...]] = ("none", "nuclei")
    positive: ClassVar[str | None] = "nuclei"
    masks: ClassVar[tuple[str, ...]] = ("evidence",)

    def __post_init__(self) -> None:
        if not 0 <= self.most_none < self.least_nuclei < self.most_nuclei <= 1:
            raise ValueError(
                "most_none, least_nuclei and most_nuclei must rise from 0 to 1; got"
                f" {self.most_none}, {self.least_nuclei}, {self.most_nuclei}"
            )
        if sorted(self.shares) != sorted(SPLITS) or min(self.shares.values()) <= 0:
            raise ValueError(f"shares must be positive, of train, val and test; got {self.shares}")
        if unknown := set(self.tiles or {}) - set(SPLITS):
            raise ValueError(f"tiles are of train, val and test; got {sorted(unknown)[0]!r}")
        if self.size_px < 8 or self.alike <= 0:
            raise ValueError(
                f"size_px must be at least 8, alike positive; got {self.size_px}, {self.alike}"
            )

    def made_by(self) -> dict[str, Any]:
        """All that decides the tiles; files by their content, wherever they lie."""
        content = hashlib.sha256()
        for image, labels in self._files():
            content.update(image.name.encode() + image.read_bytes() + labels.read_bytes())
        settings = asdict(self) | {"kind": self.kind, "version": 1}
        settings.pop("path")
        return settings | {"content": content.hexdigest()[:16]}

    def make(self, progress: Progress | None = None) -> Iterator[Tile]:
        """The tiles, classes in turn.

        Raises:
            ManifestError: files are missing or do not fit each other.
        """
        tiles = []
        files = self._files()
        images = [read_image(str(image), None) for image, _ in files]
        looks = _looks(images, self.alike)
        for done, ((file, labels), image, look) in enumerate(
            zip(files, images, looks, strict=True)
        ):
            tiles += list(self._cut(file.stem, image, _nuclei(labels, image), look))
            if progress:
                progress("images", done + 1, len(files))
        splits = share_out(
            [tile.patient for tile in tiles],
            [tile.label for tile in tiles],
            self.shares,
            self.seed,
        )
        rng = np.random.default_rng(self.seed)
        for split in SPLITS:
            mine = [tile for tile, its in zip(tiles, splits, strict=True) if its == split]
            by_class = [[t for t in mine if t.label == name] for name in self.classes]
            count = min(len(part) for part in by_class)
            count = min(count, (self.tiles or {}).get(split, 2 * count) // 2)
            drawn = [rng.permutation(len(part))[:count] for part in by_class]
            for pair in zip(*drawn, strict=True):
                for part, index in zip(by_class, pair, strict=True):
                    tile = part[index]
                    yield Tile(tile.name, tile.image, tile.label, split, tile.patient, tile.masks)

    def _cut(
        self, name: str, image: NDArray[np.uint8], nuclei: NDArray[np.bool_], look: str
    ) -> Iterator[Tile]:
        side = self.size_px
        for y in range(0, len(image) - side + 1, side):
            for x in range(0, image.shape[1] - side + 1, side):
                part = (slice(y, y + side), slice(x, x + side))
                share = nuclei[part].mean()
                if self.most_none < share < self.least_nuclei or share > self.most_nuclei:
                    continue
                label = "nuclei" if share >= self.least_nuclei else "none"
                evidence = {"evidence": nuclei[part]}
                yield Tile(f"{name}_{x}_{y}", image[part], label, "", look, evidence)

    def _files(self) -> list[tuple[Path, Path]]:
        """Images and their masks by name."""
        folder = Path(self.path)
        images = sorted(p for p in (folder / "images").glob("*") if not p.name.startswith("."))
        masks = {p.stem: p for p in (folder / "labels").glob("*")}
        if len(images) < 3:
            raise ManifestError(
                f"{folder}: wanted folders images and labels with files of one name, got"
                f" {len(images)} images"
            )
        lost = [image.name for image in images if image.stem not in masks]
        if lost:
            raise ManifestError(f"{folder}: no file in labels is called like images/{lost[0]}")
        return [(image, masks[image.stem]) for image in images]


def _nuclei(path: Path, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    try:
        with Image.open(path) as opened:
            labels = np.asarray(opened)
    except (OSError, UnidentifiedImageError) as error:
        raise ManifestError(f"{path}: not an image ({error}); restore it") from error
    if labels.shape != image.shape[:2]:
        raise ManifestError(f"{path}: of shape {labels.shape}, its image {image.shape[:2]}")
    return np.asarray(labels > 0)


def _looks(images: list[NDArray[np.uint8]], alike: float) -> list[str]:
    """A name for each image, the same for those of one look (average linkage)."""
    pixels = [image.reshape(-1, 3).astype(np.float64) for image in images]
    looks = np.array([np.concatenate([p.mean(0), p.std(0)]) for p in pixels])
    return [f"look_{i:03d}" for i in fcluster(linkage(looks, "average"), alike, "distance")]
