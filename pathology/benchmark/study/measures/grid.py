"""The grid pointing game on mosaics of tissue."""

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.study.measures.catalogue import undefined, value
from pathology.benchmark.study.measures.localisation import PLANTED
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.benchmark.tile_sets import Examples
from pathology.map_quality.energy import positive_mass
from pathology.map_quality.grid import grid_pointing

GROUP = "grid"


def grid(subject: Subject, *, mosaics: int, cells: int, kernel: int) -> list[Value]:
    """Mosaics of the input's own size, of crops of test tiles at their own mpp.

    One crop of the class whose evidence is known among crops of others; where no class is set
    apart, each class has its turn. Every tile of the class has its turn before one comes again.
    Tiles are drawn by the seed alone, not by what a network thinks
    of them: every network and method sees the same mosaics. A map without a positive value has
    nothing in the cell: 0, as published, or a method that is silent on hard mosaics would gain.

    Args:
        subject: a method on a network.
        mosaics: how many.
        cells: along each side.
        kernel: of the smoothing before negative values are dropped; 0 for none.
    """
    metrics = ("gridpg", "empty_mass")
    if subject.method is None:
        return undefined(GROUP, metrics, "the oracle knows no masks of mosaics")
    if "confounder" in subject.tile_set.masks:
        return undefined(GROUP, metrics, PLANTED)
    side = subject.tile_set.size_px
    if side % cells:
        return undefined(GROUP, metrics, f"tiles of {side} px are not cut into {cells} cells")
    rng = subject.rng(GROUP)
    orders = [rng.permutation(np.flatnonzero(subject.test.labels == target))
              for target in range(len(subject.tile_set.classes))]  # fmt: skip
    made = [_mosaic(subject, cells, i, orders, rng) for i in range(mosaics)]
    targets = np.array([each.target for each in made], np.int64)
    places = np.array([each.place for each in made])
    maps = subject.explain(np.stack([each.image for each in made]), targets)
    found = grid_pointing(maps, places, cells, kernel=kernel)
    values = [
        value(
            GROUP,
            "gridpg",
            np.nan_to_num(share),
            example=f"mosaic{i:03}",
            patient=each.patient,
            note="" if np.isfinite(share) else "the map has no positive value: 0",
        )
        for i, (share, each) in enumerate(zip(found, made, strict=True))
    ]
    empty = subject.explain(np.stack([each.empty for each in made]), targets)
    total = positive_mass(maps).sum()
    ratio = positive_mass(empty).sum() / total if total else np.nan
    why = "" if total else "no map has a positive value"
    return [*values, value(GROUP, "empty_mass", ratio, note=why)]


class _Mosaic:
    """A mosaic of one crop of ``target`` at ``place``, and the same without it."""

    def __init__(
        self,
        crops: list[NDArray[np.uint8]],
        spare: NDArray[np.uint8],
        place: int,
        target: int,
        patient: str,
    ) -> None:
        self.place, self.target, self.patient = place, target, patient
        self.image = _joined(crops)
        self.empty = _joined([*crops[:place], spare, *crops[place + 1 :]])


def _mosaic(
    subject: Subject,
    cells: int,
    turn: int,
    orders: list[NDArray[np.intp]],
    rng: np.random.Generator,
) -> _Mosaic:
    test, classes = subject.test, len(subject.tile_set.classes)
    if subject.positive is None:
        turn, target = divmod(turn, classes)
    else:
        target = subject.positive
    rows, others = orders[target], np.flatnonzero(test.labels != target)
    if not len(rows) or not len(others):
        raise ValueError("grid: the test tiles are of one class; ask for more examples")
    side = subject.tile_set.size_px // cells
    chosen, place = int(rows[turn % len(rows)]), int(rng.integers(cells * cells))
    drawn = rng.choice(others, cells * cells, replace=len(others) < cells * cells)
    *around, spare = [_crop(test, int(i), side, rng) for i in drawn]
    crops = [*around[:place], _crop(test, chosen, side, rng), *around[place:]]
    return _Mosaic(crops, spare, place, target, test.patients[chosen])


def _crop(examples: Examples, row: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A crop anywhere; of tiles with evidence one of eight that shows the most of it."""
    size = examples.images.shape[1]
    corners = rng.integers(0, size - side + 1, (8, 2))
    best = 0
    if "evidence" in examples.masks:
        mask = examples.masks["evidence"][row]
        best = int(np.argmax([mask[y : y + side, x : x + side].sum() for y, x in corners]))
    y, x = corners[best]
    return examples.images[row, y : y + side, x : x + side]


def _joined(crops: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    cells = round(len(crops) ** 0.5)
    rows = [np.concatenate(crops[i : i + cells], 1) for i in range(0, len(crops), cells)]
    return np.concatenate(rows, 0)
