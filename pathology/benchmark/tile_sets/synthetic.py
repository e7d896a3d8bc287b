"""Tiles of synthetic slides: evidence known to the pixel, and a confounder where one is asked for.

A patient is a rendering of its own seed, with both classes of tissue, so that stain and scanner say
nothing about the class.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.tile_sets.confounders import CONFOUNDERS, Confounder, plant
from pathology.benchmark.tile_sets.tile_set import SPLITS
from pathology.benchmark.tile_sets.writing import Tile
from pathology.synthetic import Rendering, SyntheticSlideSpec, render
from pathology.synthetic.cohort import VERSION as RENDERING
from pathology.synthetic.layout import NORMAL, TUMOUR

Progress = Callable[[str, int, int], None]

NORMAL_NUCLEUS, TUMOUR_NUCLEUS = 1, 2  # of Rendering.evidence
BLOCK = 512  # renderings of whole blocks are the fastest
DEFAULT_TILES = {"train": 600, "val": 150, "test": 150}
BARREN = 8
"""So many patients in a row without a tile are too many."""


@dataclass(frozen=True, slots=True)
class SyntheticTiles:
    """Makes tiles ``normal`` and ``tumour``, equally many of each.

    A tile is of tumour where at least ``tumour_share`` of it is the region of tumour, and normal
    where none of it is; what is in between is left out, and so are tiles in which the nuclei of the
    class take less than ``least_nuclei``, by which nobody could tell.

    Masks: ``evidence`` tumour nuclei, ``region`` tumour, ``other`` nuclei of normal epithelium, and
    with a confounder ``confounder``, what was painted.

    With a confounder, marks go with the class in train and val: a tile of tumour has one with
    probability (1 + correlation) / 2, a normal one with the rest. Each tile of test is there twice,
    with and without (column ``base`` says which belong together): of stratum ``aligned`` where it
    goes with the class as in training, ``swapped`` where against. What the mark does to a score is
    the difference of the two.

    Args:
        tiles: how many by split.
        size_px: side.
        mpp: micrometres per pixel.
        seed: sets of different seeds share no patient.
        confounder: what is planted.
        correlation: of mark and class in training, 0 to 1.
        tumour_share: least share of the region in a tile of tumour.
        least_nuclei: least share of nuclei of the class.
        least_tissue: least share of tissue.
        per_patient: tiles of each patient, of both classes together.
    """

    tiles: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_TILES))
    size_px: int = 64
    mpp: float = 1.0
    seed: int = 0
    confounder: Confounder | None = None
    correlation: float = 1.0
    tumour_share: float = 0.5
    least_nuclei: float = 0.05
    least_tissue: float = 0.7
    per_patient: int = 10

    kind: ClassVar[str] = "synthetic"
    classes: ClassVar[tuple[str, ...]] = ("normal", "tumour")
    positive: ClassVar[str | None] = "tumour"

    def __post_init__(self) -> None:
        if sorted(self.tiles) != sorted(SPLITS) or min(self.tiles.values()) < 4:
            raise ValueError(
                f"tiles must be numbers of train, val and test, at least 4; got {dict(self.tiles)}"
            )
        if self.size_px < 16 or self.seed < 0 or self.per_patient < 2:
            raise ValueError(
                "size_px must be at least 16, seed 0 and per_patient 2; got"
                f" {self.size_px}, {self.seed}, {self.per_patient}"
            )
        if self.confounder is not None and self.confounder not in CONFOUNDERS:
            raise ValueError(
                f"confounder must be one of {', '.join(CONFOUNDERS)}, got {self.confounder!r}"
            )
        shares = (self.correlation, self.tumour_share, self.least_nuclei, self.least_tissue)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(
                "correlation, tumour_share, least_nuclei and least_tissue must be 0 to 1, got"
                f" {', '.join(map(str, shares))}"
            )

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks."""
        return ("evidence", "region", *(["confounder"] if self.confounder else []), "other")

    def made_by(self) -> dict[str, Any]:
        """All that decides the tiles."""
        return asdict(self) | {"kind": self.kind, "rendering": RENDERING, "version": 1}

    def make(self, progress: Progress | None = None) -> Iterator[Tile]:
        """The tiles, classes and patients in turn.

        Raises:
            ValueError: hardly any tile is as asked for.
        """
        for number, split in enumerate(SPLITS):
            is_paired = self.confounder is not None and split == "test"
            count = self.tiles[split] // (2 if is_paired else 1)
            bases = self._bases(split, number, count, progress)
            for base in bases:
                yield from self._planted(base, number) if self.confounder else [base]

    def _bases(self, split: str, number: int, count: int, progress: Progress | None) -> list[Tile]:
        """Tiles of a split before anything is planted."""
        left = {"normal": count - count // 2, "tumour": count // 2}
        found: list[tuple[int, int, str, Tile]] = []
        patient = barren = 0
        while any(left.values()):
            rng = np.random.default_rng((self.seed, number, patient))
            mine = self._patient(split, number, patient, rng)
            barren = 0 if any(mine[label] for label in left if left[label]) else barren + 1
            if barren >= BARREN:
                raise ValueError(
                    f"of {BARREN} patients none has a tile of {self.size_px} px at {self.mpp} mpp"
                    f" as asked for ({', '.join(k for k in left if left[k])} is missing); take"
                    " smaller tumour_share, least_nuclei or least_tissue"
                )
            for label, tiles in mine.items():
                for place, tile in enumerate(tiles[: left[label]]):
                    found.append((place, patient, label, tile))
                left[label] -= len(tiles[: left[label]])
            patient += 1
            if progress:
                progress(split, count - sum(left.values()), count)
        return [tile for *_, tile in sorted(found, key=lambda entry: entry[:3])]

    def _patient(
        self, split: str, number: int, patient: int, rng: np.random.Generator
    ) -> dict[str, list[Tile]]:
        """Tiles of a patient by class, none over another, at random."""
        side = BLOCK * -(-6 * self.size_px // BLOCK)
        # As in cohorts: no two sets of small seeds meet, however large.
        seed = self.seed * 1_000_000 + number * 100_000 + patient
        whole = render(SyntheticSlideSpec(seed, (side, side), self.mpp, 0.5), 0, 0, side, side)
        top, left = rng.integers(0, self.size_px, 2)
        corners = [
            (y, x)
            for y in range(top, side - self.size_px + 1, self.size_px)
            for x in range(left, side - self.size_px + 1, self.size_px)
        ]
        rng.shuffle(corners)
        made: dict[str, list[Tile]] = {"normal": [], "tumour": []}
        for y, x in corners:
            part = (slice(y, y + self.size_px), slice(x, x + self.size_px))
            label = self._label(whole, part)
            if label is None or len(made[label]) >= self.per_patient // 2:
                continue
            masks = {
                "evidence": whole.evidence[part] == TUMOUR_NUCLEUS,
                "region": whole.regions[part] == TUMOUR,
                "other": whole.evidence[part] == NORMAL_NUCLEUS,
            }
            name = f"{split}_{patient:04d}"
            made[label].append(Tile(f"{name}_{x}_{y}", whole.rgb[part], label, split, name, masks))
        return made

    def _label(self, whole: Rendering, part: tuple[slice, slice]) -> str | None:
        regions, evidence = whole.regions[part], whole.evidence[part]
        if (regions > 0).mean() < self.least_tissue:
            return None
        share = (regions == TUMOUR).mean()
        if share >= max(self.tumour_share, 1e-9):
            enough = (evidence == TUMOUR_NUCLEUS).mean() >= self.least_nuclei
            return "tumour" if enough else None
        if share == 0 and (regions == NORMAL).any():
            enough = (evidence == NORMAL_NUCLEUS).mean() >= self.least_nuclei
            return "normal" if enough else None
        return None

    def _planted(self, base: Tile, number: int) -> Iterator[Tile]:
        """A tile with or without a mark; of test both."""
        assert self.confounder is not None
        patient = int(base.patient.rpartition("_")[2])
        x, y = (int(word) for word in base.name.split("_")[-2:])
        rng = np.random.default_rng((self.seed, number, patient, x, y))
        goes_along = rng.random() < (1 + self.correlation) / 2
        painted = plant(self.confounder, base.image, rng)
        for stratum in ("aligned", "swapped") if base.split == "test" else ("",):
            along = goes_along if not stratum else stratum == "aligned"
            is_marked = along == (base.label == self.positive)
            nothing: NDArray[np.bool_] = np.zeros_like(painted.mask)
            yield Tile(
                f"{base.name}_{stratum}".rstrip("_"),
                painted.rgb if is_marked else base.image,
                base.label,
                base.split,
                base.patient,
                {**base.masks, "confounder": painted.mask if is_marked else nothing},
                {
                    "confounder": self.confounder if is_marked else "",
                    "stratum": stratum or ("aligned" if along else "swapped"),
                    "base": base.name,
                },
            )
