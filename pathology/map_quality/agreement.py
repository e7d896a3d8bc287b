"""How alike maps are: two of one image, and those of models trained on different patients."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Rank correlation of two arrays of one shape; NaN where either is constant.

    Ties share their mean rank.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"both must have one shape, got {first.shape} and {second.shape}")
    first, second = rankdata(first.ravel()), rankdata(second.ravel())
    first, second = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    if scale == 0:
        return math.nan
    return float(np.clip(first @ second / scale, -1, 1))


def similarity(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation of maps ``(n, h, w)``, image by image.

    Returns:
        ``(n,)``; NaN where a map is constant, which has no order.
    """
    if maps.shape != others.shape or maps.ndim != 3:
        raise ValueError(f"maps must be (n, h, w) twice, got {maps.shape} and {others.shape}")
    return np.array([spearman(*pair) for pair in zip(maps, others, strict=True)])


def distance(rho: NDArray[np.float64] | float, keep_sign: bool = True) -> NDArray[np.float64]:
    """From rank correlation to distance.

    Args:
        rho: in [-1, 1].
        keep_sign: ``(1 - rho) / 2``: maps that say the opposite are farthest apart. Otherwise
            ``sqrt(1 - |rho|)`` as published, by which a map and its negative are the same.
    """
    correlation = np.asarray(rho, np.float64)
    if keep_sign:
        return (1 - correlation) / 2
    # Rounding may leave |rho| a hair above one.
    return np.sqrt(np.maximum(1 - np.abs(correlation), 0))


@dataclass(frozen=True, slots=True, eq=False)
class FoldAgreement:
    """Whether models that learnt from different patients give the same reasons.

    Args:
        mege: mean generalisability, ``1 / (1 + mean distance)`` where both models are right.
        reco: relative consistency, the best of ``TPR + TNR - 1`` over thresholds that tell "both
            right" (near) from "one right" (far): 1 where they never overlap, 0 at chance.
        agreeing: distances of pairs of which both models are right.
        contradicting: of pairs of which one is.
        undefined: pairs left out since a map was constant.
        note: why a value does not exist.
    """

    mege: float
    reco: float
    agreeing: NDArray[np.float64]
    contradicting: NDArray[np.float64]
    undefined: int
    note: str = ""


def fold_agreement(
    maps: NDArray[np.floating],
    right: NDArray[np.bool_],
    held_out: NDArray[np.integer],
    keep_sign: bool = True,
) -> FoldAgreement:
    """MeGe and ReCo.

    Of each two models the images count that either of them did not see in training.

    Args:
        maps: ``(folds, n, h, w)`` of each image by the model of each fold, of the image's class.
        right: ``(folds, n)`` whether that model classifies it rightly.
        held_out: ``(n,)`` the fold whose model did not see the image.
        keep_sign: see :func:`distance`.

    Raises:
        ValueError: shapes that do not go together, or fewer than two folds.

    Source:
        Fel et al., "How Good is your Explanation? Algorithmic Stability Measures to Assess the
        Quality of Explanations for Deep Neural Networks", WACV 2022 (arXiv:2009.04521); all
        distances serve as thresholds, not a few.
    """
    folds, count = maps.shape[:2]
    if maps.ndim != 4 or right.shape != (folds, count) or held_out.shape != (count,) or folds < 2:
        raise ValueError(
            "maps must be (folds, n, h, w) of two folds or more, right (folds, n) and held_out"
            f" (n,), got {maps.shape}, {right.shape} and {held_out.shape}"
        )
    agreeing: list[float] = []
    contradicting: list[float] = []
    for i, j in combinations(range(folds), 2):
        for image in np.flatnonzero((held_out == i) | (held_out == j)):
            rights = int(right[i, image]) + int(right[j, image])
            if rights:
                rho = spearman(maps[i, image], maps[j, image])
                (agreeing if rights == 2 else contradicting).append(float(distance(rho, keep_sign)))
    same, different = np.array(agreeing), np.array(contradicting)
    undefined = int(np.isnan(same).sum() + np.isnan(different).sum())
    same, different = same[~np.isnan(same)], different[~np.isnan(different)]
    notes = []
    if not len(same):
        notes.append("no image of which two models are right")
    if not len(different):
        notes.append("no image of which one of two models is right")
    mege = 1 / (1 + float(same.mean())) if len(same) else math.nan
    reco = relative_consistency(same, different) if len(same) and len(different) else math.nan
    return FoldAgreement(mege, reco, same, different, undefined, "; ".join(notes))


def relative_consistency(
    agreeing: NDArray[np.float64], contradicting: NDArray[np.float64]
) -> float:
    """The best ``TPR + TNR - 1`` of "a distance of at most t means both are right"."""
    thresholds = np.unique(np.concatenate([agreeing, contradicting]))
    near = np.searchsorted(np.sort(agreeing), thresholds, side="right") / len(agreeing)
    far = 1 - np.searchsorted(np.sort(contradicting), thresholds, side="right") / len(contradicting)
    return max(0.0, float((near + far - 1).max()))
