"""How tile logits become a slide score: weights that sum to one, so that contributions carry over.

A slide score is ``sum_i w_i * logit_i``; with the weights held constant a tile's pixels contribute
``w_i`` times what they contribute to the tile's own logit.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Pooling(Protocol):
    """Gives each tile of a slide its weight."""

    needs_logits: bool
    """Whether weights depend on logits, which then must be known before explaining."""

    def weights(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(tiles,)`` logits of the target to ``(tiles,)`` weights, at least 0, sum 1."""


@dataclass(frozen=True, slots=True)
class MeanPooling:
    """Every tile counts the same: the score is the mean of the tile logits."""

    needs_logits = False

    def weights(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(logits), 1 / len(logits))

    def __str__(self) -> str:
        return "mean"


@dataclass(frozen=True, slots=True)
class TopPooling:
    """The score is the mean of the ``k`` highest tile logits (of all, when there are fewer).

    Raises:
        ValueError: ``k`` below 1.
    """

    k: int
    needs_logits = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"top pooling needs at least one tile, got {self.k}")

    def weights(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.argsort(-logits, kind="stable")[: self.k]
        weights = np.zeros(len(logits))
        weights[kept] = 1 / len(kept)
        return weights

    def __str__(self) -> str:
        return f"top{self.k}"


def parse_pooling(text: str) -> Pooling:
    """``"mean"``, or ``"top50"`` for the mean of the 50 highest.

    Raises:
        ValueError: another word.
    """
    if text == "mean":
        return MeanPooling()
    if text.startswith("top") and text[3:].isdigit():
        return TopPooling(int(text[3:]))
    raise ValueError(f'pooling must be "mean" or "top" and a number, e.g. "top50"; got {text!r}')
