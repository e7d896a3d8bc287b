"""Infidelity: whether a map's sums over what is removed tell how much the logit falls.

Squares of an image are replaced, and the sum of the map over each is held against the fall of the
logit. For a linear network and contributions to the difference from the filling they are the same.

The published error has the unit of squared logits and grows with them. Here the map is scaled as
suits it best (never by a negative factor, or a map and its opposite would be as good), and the
error is a share of the squared falls: 0 is perfect, 1 is what a map of zeros gets.

Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019
(arXiv:1901.09392), with square removal, in the form of masks, since maps here are of contributions
and not of slopes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Colour, Fill, Mask
from pathology.map_quality.scoring import Quantity, check_map


@dataclass(frozen=True, slots=True, eq=False)
class Infidelity:
    """Sums of a map over squares, and what removing the squares did.

    Args:
        sums: ``(n,)`` of the map over each square.
        falls: ``(n,)`` of the logit (or probability).
        areas: ``(n,)`` of the squares in pixels: the sums of a uniform map.
        note: why there is no value.
    """

    sums: NDArray[np.float64]
    falls: NDArray[np.float64]
    areas: NDArray[np.float64]
    note: str = ""

    @property
    def beta(self) -> float:
        """The factor of the map that fits best, at least 0."""
        return _scale(self.sums, self.falls)

    @property
    def normalised(self) -> float:
        """Error of the scaled map as a share of the squared falls, in [0, 1]; low is good."""
        return math.nan if self.note else _share(self.sums, self.falls)

    @property
    def uniform(self) -> float:
        """The same of a uniform map, which knows only how large the squares are: the bar to beat.

        Squares of tissue that speak for the class mostly make its logit fall, so it is below 1.
        """
        return _share(self.areas, self.falls) if self.falls.any() else math.nan

    @property
    def raw(self) -> float:
        """The published error, without a scale: mean squared difference, in squared logits."""
        return float(np.square(self.sums - self.falls).mean())


def infidelity(
    question: Question,
    attribution: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    samples: int = 100,
    sides: tuple[float, float] = (0.125, 0.5),
    fill: Fill | None = None,
    quantity: Quantity = "logit",
) -> Infidelity:
    """Infidelity of one map; ``.normalised`` is the number.

    Args:
        question: the image, the class explained and the network.
        attribution: ``(h, w)`` the map, signed.
        rng: of sizes and places of squares.
        samples: squares removed, one at a time.
        sides: smallest and largest side, as shares of the image's shorter side.
        fill: what removed pixels become; glass when omitted.
        quantity: that falls, ``logit`` or ``probability``.

    Raises:
        ValueError: image and map that do not go together, no squares.
    """
    image = question.image
    check_map(image, attribution)
    fill = Colour() if fill is None else fill
    removed = draw_squares(rng, image.shape[:2], samples, sides)
    others = (fill(image, mask) for mask in removed)
    fell = question.falls(others, quantity)
    wide = attribution.astype(np.float64)
    sums = np.array([wide[mask].sum() for mask in removed])
    areas = np.array([float(mask.sum()) for mask in removed])
    note = ""
    if not fell.any():
        note = "removing squares does nothing"
    elif np.ptp(attribution) == 0:
        note = "the map is constant"
    return Infidelity(sums, fell, areas, note)


def draw_squares(
    rng: np.random.Generator, shape: tuple[int, int], samples: int, sides: tuple[float, float]
) -> list[Mask]:
    """Squares inside an image, of sides and at places that are as likely.

    Raises:
        ValueError: none asked for, or sides that are no rising shares.
    """
    if samples < 1 or not 0 < sides[0] <= sides[1] <= 1:
        raise ValueError(
            f"samples must be at least 1 and sides two shares that rise in (0, 1], got {samples},"
            f" {sides}"
        )
    least, most = (max(1, round(side * min(shape))) for side in sides)
    masks = []
    for side in rng.integers(least, most + 1, samples):
        top, left = rng.integers(0, shape[0] - side + 1), rng.integers(0, shape[1] - side + 1)
        mask = np.zeros(shape, bool)
        mask[top : top + side, left : left + side] = True
        masks.append(mask)
    return masks


def _scale(sums: NDArray[np.float64], falls: NDArray[np.float64]) -> float:
    power = float(sums @ sums)
    return max(0.0, float(sums @ falls) / power) if power else 0.0


def _share(sums: NDArray[np.float64], falls: NDArray[np.float64]) -> float:
    rest = _scale(sums, falls) * sums - falls
    return float((rest @ rest) / (falls @ falls))
