"""A map held against null maps: those that models which know nothing make of the same slide.

Random weights find evidence of any size, usually a hundredth of what training found, so in logits
every map would beat every null. What is asked is where evidence lies: each null is first given the
map's own sum of absolute values. Of the ``n`` nulls ``u_k`` made so that cover a pixel of the map
``m``, which are all unless a pooling picks tiles::

    null_mean, null_spread   mean and standard deviation (n - 1) of the nulls
    null_z   normal score of t = (m - mean) / (spread sqrt(1 + 1/n)), with n - 1 degrees of freedom
    null_p   (1 + number of k with |u_k| >= |m|) / (1 + n)

A null that picks other tiles says nothing of this one. As a 0 here it would lose to any map, chance
or not: pixels are shown where the map looks.

``t`` is what a further null would be measured by. A spread of few nulls is often small by chance:
of three, a twentieth of all pixels have ``|m - mean| / spread`` above 5 when there is nothing to
find. As a normal score it is 2 there, whatever ``n``. ``null_p`` assumes no distribution, and has
no more than ``n + 1`` values. Neither is corrected for how many pixels there are.

The slide has a figure that is: the share of the map's absolute sum in pixels where it exceeds all
nulls, which are 0 where they do not look. Each null has the same share, against the map and the
other nulls; if the map were one more null, all ranks of its share would be as likely, so
``(1 + nulls with as large a share) / (1 + n)`` is a p-value of the whole map, whatever is
correlated with what. It is never below ``1 / (1 + n)``: five in a hundred takes 19 nulls.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr
from scipy.stats import rankdata

from pathology.explain.stitching.combine import Floats, bands, check_alike, raster, rasters, ratio
from pathology.explain.stitching.stitch import Stitched
from pathology.maps.pyramid import shrink
from pathology.maps.slide_map import SlideMap

LEAST = 2
"""Nulls that a spread takes."""
RANKED_PX = 512
"""Longest side of the maps that are ranked: ranks need all pixels at once."""


@dataclass(frozen=True)
class NullFigures:
    """What nulls say of a whole map.

    Args:
        mass: the nulls' sums of absolute values over the map's, before they were made alike; None
            for a map of zeros.
        beyond: share of the map's absolute sum where it exceeds all nulls.
        beyond_of_nulls: the same of each null.
        p: of the map's share among all of them.
        rank_correlation: Spearman's, between the map and each null, in pixels that both cover,
            reduced to 512 on the longest side; None where one of them is constant.
        rank_correlation_absolute: the same of absolute values.
    """

    mass: list[float] | None
    beyond: float
    beyond_of_nulls: list[float]
    p: float
    rank_correlation: list[float | None]
    rank_correlation_absolute: list[float | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, as JSON has them."""
        return asdict(self)


def compare_with_nulls(
    found: Stitched, nulls: Sequence[Stitched], folder: str | Path
) -> tuple[dict[str, SlideMap], NullFigures]:
    """Hold a map against null maps.

    Layers are NaN where the map is, and where too few nulls cover a pixel: one for ``null_mean``,
    two for the others but ``null_p``, which is 1 where none does. ``null_z`` is NaN, too, where all
    are alike and the map is not.

    Args:
        found: the map.
        nulls: made like it.
        folder: where rasters are written; made if missing.

    Returns:
        ``null_mean``, ``null_spread``, ``null_z`` and ``null_p``, and the figures.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: fewer than two nulls, or maps of different shapes.
    """
    parts, folder, count = [found, *nulls], Path(folder), len(nulls)
    check_alike(parts)
    check_count(count)
    masses = _masses(parts)
    to_same = np.array([masses[0] / mass if mass else 0.0 for mass in masses])[:, None, None]
    beyond = np.zeros(count + 1)
    names = ("null_mean", "null_spread", "null_z", "null_p")
    with rasters(folder, found.shape[1], tuple(f"{name}.f32" for name in names)) as write:
        for values in bands(parts):
            seen = np.isfinite(values)
            alike = np.where(seen, values, 0.0) * to_same
            beyond += _beyond(np.abs(alike))
            own, others, is_asked = alike[0], alike[1:], seen[1:]
            asked = is_asked.sum(axis=0)
            mean = ratio(others.sum(axis=0), asked)
            apart = np.where(is_asked, others - mean, 0.0)
            spread = np.sqrt(ratio((apart**2).sum(axis=0), asked - 1))
            exceeded = ((np.abs(others) >= np.abs(own)) & is_asked).sum(axis=0)
            made = {
                "null_mean": mean,
                "null_spread": spread,
                "null_z": normal_score(own - mean, spread, asked),
                "null_p": (1 + exceeded) / (1 + asked),
            }
            write({f"{name}.f32": np.where(seen[0], band, np.nan) for name, band in made.items()})
    units = (found.unit, found.unit, "normal score", "p")
    layers = {
        name: raster(found, folder / f"{name}.f32", unit)
        for name, unit in zip(names, units, strict=True)
    }
    shares = beyond / masses[0] if masses[0] else beyond
    signed, absolute = _rank_correlations(parts)
    figures = NullFigures(
        mass=[mass / masses[0] for mass in masses[1:]] if masses[0] else None,
        beyond=float(shares[0]),
        beyond_of_nulls=[float(share) for share in shares[1:]],
        p=float(1 + (shares[1:] >= shares[0]).sum()) / (1 + count),
        rank_correlation=signed,
        rank_correlation_absolute=absolute,
    )
    return layers, figures


def check_count(count: int) -> None:
    """Refuse fewer nulls than a spread takes.

    Raises:
        ValueError: saying how many.
    """
    if count < LEAST:
        raise ValueError(f"a spread takes at least {LEAST} nulls, got {count}")


def normal_score(off: Floats, spread: Floats, count: NDArray[np.integer]) -> Floats:
    """The normal number that is as rare as a value ``off`` the mean of ``count`` nulls.

    Args:
        off: value minus mean.
        spread: the nulls' standard deviation (n - 1), of the same shape.
        count: of nulls, of the same shape; there is no spread of fewer than 2.

    Returns:
        Of the same shape; 0 where ``off`` is, NaN where there is no spread to measure it by.
    """
    count = np.maximum(count, LEAST)
    t = ratio(np.abs(off), spread * np.sqrt(1 + 1 / count))
    # The far tail: near 0 and 1 a probability of the middle has lost its digits.
    tail = np.maximum(stdtr(count - 1, -t), np.finfo(np.float64).tiny)
    score: Floats = -np.sign(off) * ndtri(tail)
    score[off == 0] = 0.0
    return score


def _masses(parts: Sequence[Stitched]) -> list[float]:
    """Sums of absolute values."""
    sums = [np.nansum(np.abs(values), axis=(1, 2)) for values in bands(parts)]
    return [math.fsum(column) for column in np.array(sums).T]


def _beyond(sizes: Floats) -> Floats:
    """What each of several maps holds where it is the largest of all, ``(maps,)``."""
    in_order = np.sort(sizes, axis=0)
    is_most = (sizes == in_order[-1]) & (in_order[-1] > in_order[-2])
    total: Floats = np.where(is_most, sizes, 0.0).sum(axis=(1, 2))
    return total


def _rank_correlations(
    parts: Sequence[Stitched],
) -> tuple[list[float | None], list[float | None]]:
    """Spearman's between the first map and each other one, of values and of absolute values."""
    first, *others = [np.asarray(shrink(part.additive, RANKED_PX).values) for part in parts]
    signed: list[float | None] = []
    absolute: list[float | None] = []
    for other in others:
        both = np.isfinite(first) & np.isfinite(other)
        ours, theirs = first[both], other[both]
        signed.append(_spearman(ours, theirs))
        absolute.append(_spearman(np.abs(ours), np.abs(theirs)))
    return signed, absolute


def _spearman(ours: Floats, theirs: Floats) -> float | None:
    if len(ours) < 2 or not np.ptp(ours) or not np.ptp(theirs):
        return None
    return float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
