"""Single deletion: does a cell that a map calls important matter when it alone is removed?

An image is divided into n x n cells. The rank correlation of the cells' sums of the map with the
drops of the logit as each cell alone is removed is the image's value. On the network as it is
that is SDS; on one that went on learning from images with deleted cells, for which a deleted cell
is nothing strange, it is IDSDS, which compares networks of different kinds. :func:`delete_cells`
makes the images that such a network learns from.

By chance values scatter around 0 with a deviation of 1 / sqrt(cells - 1): 0.26 for 4 x 4.

Source: Hesse, Schaub-Meyer and Roth, "Benchmarking the Attribution Quality of Vision Models",
NeurIPS 2024 (arXiv:2407.11910).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.agreement import spearman
from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Colour, Fill, is_tissue
from pathology.map_quality.scoring import Quantity, check, check_map

FEWEST = 3
"""Cells with which a rank correlation says anything."""


@dataclass(frozen=True, slots=True, eq=False)
class SingleDeletion:
    """Sums of a map and drops of the logit, cell by cell.

    Args:
        correlation: Spearman's, over the cells that count; NaN with a note where there is none.
        sums: ``(n, n)`` of the map.
        drops: ``(n, n)`` logit (or probability) of the image minus that without the cell.
        counted: ``(n, n)`` cells with enough tissue.
        note: why there is no correlation.
    """

    correlation: float
    sums: NDArray[np.float64]
    drops: NDArray[np.float64]
    counted: NDArray[np.bool_]
    note: str = ""


def cells_of(shape: tuple[int, int], cells: int) -> NDArray[np.intp]:
    """``(h, w)`` number of each pixel's cell, row by row; sizes differ by a pixel at most.

    Raises:
        ValueError: fewer than one cell, or cells smaller than a pixel.
    """
    height, width = shape
    if not 1 <= cells <= min(shape):
        raise ValueError(f"cells must be from 1 to {min(shape)} per side, got {cells}")
    row, column = np.arange(height) * cells // height, np.arange(width) * cells // width
    return row[:, None] * cells + column


def single_deletion(
    question: Question,
    attribution: NDArray[np.floating],
    *,
    cells: int = 4,
    fill: Fill | None = None,
    least_tissue: float = 0.05,
    quantity: Quantity = "logit",
) -> SingleDeletion:
    """SDS of one map; IDSDS where ``score`` is of an in-domain fine-tuned network.

    Args:
        question: the image, the class explained and the network.
        attribution: ``(h, w)`` the map.
        cells: per side.
        fill: what a removed cell becomes: of IDSDS, what it was in training. Glass when omitted.
        least_tissue: share of tissue that a cell needs to count: removing glass does nothing, and
            many cells that do nothing would be agreed upon cheaply. 0 counts all.
        quantity: that drops, ``logit`` or ``probability``.

    Raises:
        ValueError: image and map that do not go together, cells that do not fit.
    """
    image = question.image
    check_map(image, attribution)
    fill = Colour() if fill is None else fill
    member = cells_of(image.shape[:2], cells)
    sums = np.zeros(cells**2)
    np.add.at(sums, member.ravel(), attribution.ravel())
    tissue = np.bincount(member.ravel(), is_tissue(image).ravel()) / np.bincount(member.ravel())
    without = (fill(image, member == cell) for cell in range(cells**2))
    drops = question.falls(without, quantity)
    counted = tissue >= least_tissue
    correlation, note = math.nan, ""
    if counted.sum() < FEWEST:
        note = f"{counted.sum()} cells with tissue"
    elif np.ptp(sums[counted]) == 0 or np.ptp(attribution) == 0:
        note = "the map is the same in all cells"
    elif np.ptp(drops[counted]) == 0:
        note = "removing any cell does the same"
    else:
        correlation = spearman(sums[counted], drops[counted])
    grid = (cells, cells)
    return SingleDeletion(
        correlation, sums.reshape(grid), drops.reshape(grid), counted.reshape(grid), note
    )


def delete_cells(image: NDArray, deleted: NDArray[np.bool_], fill: Fill | None = None) -> NDArray:
    """An image with cells removed, for in-domain fine-tuning.

    Args:
        image: ``(h, w, 3)`` RGB, floating in [0, 1] or eight bits; the result is of its kind.
        deleted: ``(n, n)`` cells to remove.
        fill: what they become; glass when omitted.

    Raises:
        ValueError: no image, or cells that are not ``(n, n)``.
    """
    if deleted.ndim != 2 or deleted.shape[0] != deleted.shape[1]:
        raise ValueError(f"deleted must be (n, n), got {deleted.shape}")
    fill = Colour() if fill is None else fill
    if image.dtype == np.uint8:
        found = delete_cells(image.astype(np.float32) / 255, deleted, fill)
        return np.rint(found * 255).astype(np.uint8)
    check(image)
    member = cells_of(image.shape[:2], len(deleted))
    return fill(image, deleted.ravel()[member])


def draw_cells(rng: np.random.Generator, cells: int = 4, most: float = 0.5) -> NDArray[np.bool_]:
    """Cells to delete in a training image: 0 to ``most`` of them, every number as likely.

    Whole images among them, so that the network keeps what it knew.
    """
    count = int(rng.integers(0, int(most * cells**2) + 1))
    deleted = np.zeros(cells**2, bool)
    deleted[rng.permutation(cells**2)[:count]] = True
    return deleted.reshape(cells, cells)
