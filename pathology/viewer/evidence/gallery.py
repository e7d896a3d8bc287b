"""The tiles that argue most, for or against, or within which most cancels; and how few carry it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pathology.viewer.evidence.tiles import Tiles

Order = Literal["for", "against", "cancelling"]
STATED = 0.8
"""Share of the evidence that the statement is about."""
MOST_TILES = 500
CURVE_POINTS = 200


@dataclass(frozen=True)
class Statement:
    """How few tiles carry how much: "37 of 2,310 tiles carry 80 %".

    Args:
        tiles: the fewest that carry at least ``share``.
        share: of the evidence of this kind.
        of: tiles that were looked at.
    """

    tiles: int
    share: float
    of: int


@dataclass(frozen=True)
class Gallery:
    """The strongest tiles of one kind.

    Args:
        indices: numbers of the tiles, the strongest first; only those that have any.
        counts: points of the curve: so many of the strongest tiles ...
        shares: ... carry this share of ``evidence``.
        statement: None where there is no evidence of this kind.
        evidence: what all tiles together hold of it, in logits, never negative.
        unknown: tiles of which it is not known how much they hold.
    """

    indices: NDArray[np.intp]
    counts: NDArray[np.intp]
    shares: NDArray[np.float64]
    statement: Statement | None
    evidence: float
    unknown: int


def strengths(tiles: Tiles, order: Order) -> NDArray[np.float64]:
    """How much each tile has of a kind of evidence, in logits of the slide's score.

    Args:
        tiles: the tiles.
        order: ``"for"``, the share where it is positive; ``"against"``, where it is negative;
            ``"cancelling"``, what its pixels say for and against alike, i.e. the smaller of both
            parts, which its share does not show.

    Returns:
        ``(n,)``, at least 0; NaN where unknown: parts of tiles that were not taken apart, of
        places coarser than pixels where none were kept, and of differences.
    """
    if order == "for":
        return np.maximum(tiles.share, 0.0)
    if order == "against":
        return np.maximum(-tiles.share, 0.0)
    columns = tiles.columns
    lesser = np.minimum(columns["positive"], -columns["negative"])
    weight = np.abs(columns["weight"])
    return np.where(weight == 0, 0.0, weight * np.maximum(lesser, 0.0))


def gallery(tiles: Tiles, order: str, count: int, inside: Any = None) -> Gallery:
    """The strongest tiles of a kind, and how the evidence is spread over all of them.

    Args:
        tiles: of an explanation, or of a difference.
        order: see :func:`strengths`.
        count: tiles that are listed at most.
        inside: only tiles whose centre lies in this geometry, so that of regions that share no area
            each tile is in one at most.

    Raises:
        ValueError: an unknown order, a count that is none, or tiles of none of which it is known.
    """
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
    if not 0 <= count <= MOST_TILES:
        raise ValueError(f"n must be from 0 to {MOST_TILES}, got {count}")
    chosen = np.arange(len(tiles)) if inside is None else tiles_inside(tiles, inside)
    strength = strengths(tiles, order)[chosen]  # type: ignore[arg-type]
    unknown = int(np.isnan(strength).sum())
    if unknown and unknown == len(chosen):
        raise ValueError(
            f"what cancels within a tile is known of none of these {unknown}: parts for and against"
            " are kept of tiles that were taken apart, and not of differences"
        )
    ranks = np.argsort(-np.nan_to_num(strength), kind="stable")
    carried = np.cumsum(strength[ranks[: np.count_nonzero(strength > 0)]])
    if not len(carried):
        nothing = np.zeros(1, np.intp)
        return Gallery(chosen[:0], nothing, nothing.astype(float), None, 0.0, unknown)
    fewest = int(np.searchsorted(carried, STATED * carried[-1])) + 1
    counts = _marks(len(carried), fewest)
    return Gallery(
        indices=chosen[ranks[: min(count, len(carried))]],
        counts=counts,
        shares=np.concatenate([[0.0], carried])[counts] / carried[-1],
        statement=Statement(fewest, STATED, len(chosen)),
        evidence=float(carried[-1]),
        unknown=unknown,
    )


def tiles_inside(tiles: Tiles, geometry: Any) -> NDArray[np.intp]:
    """Numbers of the tiles whose centre lies in a geometry of level-0 pixels."""
    import shapely

    centres = tiles.boxes[:, :2] + tiles.boxes[:, 2:] / 2
    shapely.prepare(geometry)
    return np.flatnonzero(shapely.contains_xy(geometry, centres))


def _marks(count: int, fewest: int) -> NDArray[np.intp]:
    """Up to :data:`CURVE_POINTS` of 0 to ``count``, dense where few tiles carry much."""
    if count < CURVE_POINTS:
        return np.arange(count + 1)
    some = CURVE_POINTS // 2 - 1
    few, all_over = np.geomspace(1, count, some), np.linspace(0, count, some)
    marks = np.concatenate([few, all_over]).round().astype(np.intp)
    return np.union1d(marks, [fewest])
