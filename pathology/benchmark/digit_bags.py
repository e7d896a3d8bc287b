"""Bags of handwritten digits for which it is known which tiles argue for and against each class.

Three toys (xMIL, NeurIPS 2024, arXiv:2406.04280, section 4.1 and appendix A.3), here of the
8 x 8 digits that come with scikit-learn, so that nothing is downloaded:

- ``four_bags`` (of Early et al., ICLR 2022): class 3 if there are eights and nines, 1 if there are
  eights only, 2 if nines only, 0 if neither. An eight argues for 1 and 3, against 0 and 2; a nine
  for 2 and 3, against 0 and 1.
- ``pos_neg``: class 1 if more of {4, 6, 8} than of {5, 7, 9} are in the bag, each digit counted
  once; 0 otherwise. The first argue for 1 and against 0, the others the other way round.
- ``adjacent_pairs``: class 1 if two of the digits 0 to 4 that follow each other are in the bag, 0
  otherwise. Such a digit argues for 1 and against 0 where a neighbour of it is in the bag too.

All other tiles argue for nothing. As in the paper each digit is in a bag's pool with probability
1/2, and tiles are drawn from the pool. No picture is in two splits, though a writer may be.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Digits = NDArray[np.int64]

SPLITS = {"train": 0.6, "val": 0.15, "test": 0.25}
"""Share of the pictures of each digit."""

POSITIVE, NEGATIVE = (4, 6, 8), (5, 7, 9)
PAIRS = ((0, 1), (1, 2), (2, 3), (3, 4))


@dataclass(frozen=True, slots=True)
class Toy:
    """A rule for bags of digits.

    Args:
        classes: how many.
        label: digits ``(bags, tiles)`` to classes ``(bags,)``.
        evidence: digits ``(bags, tiles)`` to ``(bags, tiles, classes)``: 1 where a tile argues for
            the class, -1 where against it, 0 where neither.
    """

    classes: int
    label: Callable[[Digits], Digits]
    evidence: Callable[[Digits], Digits]


@dataclass(frozen=True, slots=True)
class DigitBags:
    """Bags of one toy.

    Args:
        features: ``(bags, tiles, 128)`` float32 in [-1, 1]: the 64 pixels p of a digit, in [0, 1],
            as ``2p - 1``, then as ``1 - 2p``. No tile is a vector of zeros, as B-cos networks need
            it, and they are centred, as conventional ones need it.
        digits: ``(bags, tiles)``.
        labels: ``(bags,)``.
        evidence: ``(bags, tiles, classes)`` of 1, -1 and 0.
    """

    features: Tensor
    digits: Tensor
    labels: Tensor
    evidence: Tensor


def digit_bags(toy: str, split: str, bags: int, tiles: int = 30, seed: int = 0) -> DigitBags:
    """Bags of a toy, the same for the same arguments.

    Args:
        toy: a name of :data:`TOYS`.
        split: train, val or test.
        bags: how many.
        tiles: of each bag.
        seed: of which pictures are in which split, and of the bags.

    Raises:
        ValueError: no such toy or split.
        ImportError: scikit-learn is missing.
    """
    if toy not in TOYS:
        raise ValueError(f"toy must be one of {', '.join(TOYS)}, got {toy!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rng = np.random.default_rng((seed, list(TOYS).index(toy), list(SPLITS).index(split)))
    pixels, names = pictures()
    rows = picture_split(names, seed)[split]
    digits = draw_digits(rng, bags, tiles)
    chosen = np.empty_like(digits)
    for digit in range(10):
        drawn = digits == digit
        chosen[drawn] = rng.choice(rows[names[rows] == digit], drawn.sum())
    picked = torch.from_numpy(pixels[chosen])
    rule = TOYS[toy]
    return DigitBags(
        torch.cat([2 * picked - 1, 1 - 2 * picked], dim=-1),
        torch.from_numpy(digits),
        torch.from_numpy(rule.label(digits)),
        torch.from_numpy(rule.evidence(digits)),
    )


def pictures() -> tuple[NDArray[np.float32], Digits]:
    """Pixels ``(1797, 64)`` in [0, 1] and what they show."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digit bags are made of scikit-learn's digits: pip install bcos-pathology[benchmark]"
        ) from error
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int64)


def picture_split(names: Digits, seed: int) -> dict[str, Digits]:
    """Rows of the pictures of each split, every digit shared out alike."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0.0, *SPLITS.values()])
    parts: dict[str, list[Digits]] = {split: [] for split in SPLITS}
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(names == digit))
        cuts = np.round(ends * len(rows)).astype(int)
        for split, start, end in zip(SPLITS, cuts[:-1], cuts[1:], strict=True):
            parts[split].append(rows[start:end])
    return {split: np.concatenate(rows) for split, rows in parts.items()}


def draw_digits(rng: np.random.Generator, bags: int, tiles: int) -> Digits:
    """``(bags, tiles)`` of pools that are never empty."""
    pools = rng.random((bags, 10)) < 0.5
    while (empty := ~pools.any(1)).any():
        pools[empty] = rng.random((empty.sum(), 10)) < 0.5
    return np.stack([rng.choice(np.flatnonzero(pool), tiles) for pool in pools]).astype(np.int64)


def has(digits: Digits, digit: int) -> NDArray[np.bool_]:
    """``(bags,)``: whether the digit is in the bag."""
    found: NDArray[np.bool_] = (digits == digit).any(1)
    return found


def four_bags_label(digits: Digits) -> Digits:
    """Both, eights, nines or neither."""
    label: Digits = has(digits, 8).astype(np.int64) + 2 * has(digits, 9)
    return label


def four_bags_evidence(digits: Digits) -> Digits:
    """By the digit alone."""
    eight, nine = np.array([-1, 1, -1, 1]), np.array([-1, -1, 1, 1])
    return (digits == 8)[..., None] * eight + (digits == 9)[..., None] * nine


def pos_neg_label(digits: Digits) -> Digits:
    """Whether more kinds of positive than of negative digits are there."""
    positive = np.stack([has(digits, digit) for digit in POSITIVE], axis=-1)
    negative = np.stack([has(digits, digit) for digit in NEGATIVE], axis=-1)
    return (positive.sum(-1) > negative.sum(-1)).astype(np.int64)


def pos_neg_evidence(digits: Digits) -> Digits:
    """By the digit alone."""
    return for_the_second(np.isin(digits, POSITIVE).astype(np.int64) - np.isin(digits, NEGATIVE))


def adjacent_pairs_label(digits: Digits) -> Digits:
    """Whether any pair is complete."""
    complete = [has(digits, a) & has(digits, b) for a, b in PAIRS]
    return np.logical_or.reduce(complete).astype(np.int64)


def adjacent_pairs_evidence(digits: Digits) -> Digits:
    """By the digit and whether a neighbour of it is in the bag."""
    argues = np.zeros_like(digits)
    for pair in PAIRS:
        both = has(digits, pair[0]) & has(digits, pair[1])
        argues |= both[:, None] & np.isin(digits, pair)
    return for_the_second(argues)


def for_the_second(evidence: Digits) -> Digits:
    """Of two classes, ``(..., 2)``: what argues for one argues against the other."""
    return np.stack([-evidence, evidence], axis=-1)


TOYS = {
    "four_bags": Toy(4, four_bags_label, four_bags_evidence),
    "pos_neg": Toy(2, pos_neg_label, pos_neg_evidence),
    "adjacent_pairs": Toy(2, adjacent_pairs_label, adjacent_pairs_evidence),
}
"""The toys by name."""
