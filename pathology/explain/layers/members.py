"""Explanations that are averaged: a slide's score by several models, or on shifted tiles.

The mean map is exact: its sum is the mean of the members' scores, less the mean of their constants.
What members do not agree on is a layer beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.explain.results.report import ReportTile
from pathology.explain.scorers.scorer import Scorer
from pathology.explain.slide import SlideExplanation
from pathology.explain.stitching.combine import disagreement, mean_ledger, mean_map
from pathology.geometry import level0_length
from pathology.tiling import TileGrid


@dataclass(frozen=True)
class Member:
    """One of several explanations of a slide.

    Args:
        name: what it is, in words.
        scorer: the model and what makes a score of its tiles.
        grid: the slide's tiles.
    """

    name: str
    scorer: Scorer
    grid: TileGrid


def shifts(count: int) -> list[tuple[float, float]]:
    """Shifts of a grid of tiles, in shares of its stride: ``(0, 0)``, and others in [-1/2, 1/2).

    The points of a lattice of rank 1, ``k (1, g) / count`` modulo 1, with the ``g`` that keeps them
    furthest apart. A mean over them is close to that over all shifts there are, closer than one of
    as many random shifts, and nothing is drawn (Sloan and Joe, *Lattice Methods for Multiple
    Integration*, 1994).

    Args:
        count: how many, at least 1.

    Raises:
        ValueError: fewer.
    """
    if count < 1:
        raise ValueError(f"shifts must be at least 1, the grid as it is; got {count}")
    best = max(range(1, count + 1), key=lambda g: (_closest(_lattice(count, g)), -g))
    return [(x, y) for x, y in _lattice(count, best).tolist()]


def shifted(grid: TileGrid, share: tuple[float, float]) -> TileGrid:
    """The same tiles, moved together by shares of the stride.

    They move by whole pixels at the tiles' own mpp: where tiles were read without resampling, they
    still are. Tiles that now reach over the slide's edge show background there, and what it
    contributes is cut off. Tissue is that of the places they come from.

    Args:
        grid: the tiles; of random places, their size is the stride.
        share: along x and y.
    """
    spec, mpp = grid.spec, grid.source.mpp
    x, y = (
        level0_length(pixels, spec.mpp, own)
        for pixels, own in zip(shift_px(grid, share), mpp, strict=True)
    )
    return replace(grid, x=grid.x + x, y=grid.y + y)


def shift_px(grid: TileGrid, share: tuple[float, float]) -> tuple[int, int]:
    """How far :func:`shifted` moves tiles, in pixels at their mpp."""
    x, y = (round(part * grid.spec.stride_px) for part in share)
    return x, y


def check_classes(members: Sequence[Member]) -> None:
    """Refuse members that tell different things.

    Raises:
        ValueError: naming two, with their classes.
    """
    first = members[0]
    for member in members[1:]:
        if list(member.scorer.classes) != list(first.scorer.classes):
            raise ValueError(
                f"members must have the same classes in the same order: {first.name} has"
                f" {', '.join(first.scorer.classes)}; {member.name} has"
                f" {', '.join(member.scorer.classes)}"
            )


def mean_of(
    members: Sequence[Member], found: Sequence[SlideExplanation], folder: str | Path
) -> SlideExplanation:
    """The mean of several explanations of one target, with the layers of what they differ in.

    Its table holds the tiles of all members, told apart by ``member``; each weight is a share of
    what it is in its member, so that sums over the table are those of the mean; other columns,
    ``removal_effect`` among them, are of the member's own score. Tiles shown with their pixels are
    those of the first member. Stains are averaged as the map is, where all members tell them apart.

    Args:
        members: which they are, at least two.
        found: their explanations, in the same order.
        folder: where maps are written.

    Raises:
        LedgerError: the mean's ledger does not close.
        OutputError: the folder cannot be written.
        ValueError: fewer than two, of different targets, or on different maps.
    """
    if len(found) < 2 or len({each.target for each in found}) > 1:
        raise ValueError("a mean is of at least two explanations of one target")
    folder, count, first = Path(folder), len(found), found[0]
    maps = [each.stitched for each in found]
    stitched = mean_map(maps, folder)
    ledger = mean_ledger([each.ledger for each in found], stitched)
    layers, agreed = disagreement(maps, folder / "layers")
    without = [m.name for m, each in zip(members, found, strict=True) if not each.stains]
    stains = {
        name: mean_map([each.stains[name] for each in found], folder / name)
        for name in (first.stains if not without else ())
    }
    scores = [each.ledger.score for each in found]
    told: dict[str, Any] = {
        "members": [
            {"name": member.name, "score": each.logit, "ledger": each.ledger.to_dict()}
            for member, each in zip(members, found, strict=True)
        ],
        "spread_of_scores": float(np.std(scores, ddof=1)),
        "share_where_all_agree": agreed,
    }
    if 0 < len(without) < len(found):
        told["stains_left_out"] = f"not told apart by {', '.join(without)}"
    return replace(
        first,
        ledger=ledger,
        stitched=stitched,
        tiles=_table([each.tiles for each in found]),
        tiles_for=[_share(tile, count) for tile in first.tiles_for],
        tiles_against=[_share(tile, count) for tile in first.tiles_against],
        stains=stains,
        layers={**first.layers, **layers},
        told={**first.told, **told},
    )


def _table(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tiles of all members, weighted as the mean weighs them."""
    parts = [
        table.assign(weight=table["weight"] / len(tables), member=number)
        for number, table in enumerate(tables)
    ]
    return pd.concat(parts, ignore_index=True)


def _share(tile: ReportTile, count: int) -> ReportTile:
    """A member's tile in shares of the mean's score; what its removal does to that is not known."""
    return replace(tile, contributions=tile.contributions / count, removal_effect=None)


def _lattice(count: int, g: int) -> NDArray[np.float64]:
    """``(count, 2)`` points in [-1/2, 1/2)."""
    k = np.arange(count)
    whole = np.stack([k, k * g], axis=1) % count
    return np.where(2 * whole < count, whole, whole - count) / count


def _closest(points: NDArray[np.float64]) -> float:
    """The least distance between two of a lattice's points, which repeats in all directions."""
    apart = points[1:] - np.rint(points[1:])
    return round(float(np.hypot(*apart.T).min()), 9) if len(apart) else math.inf
