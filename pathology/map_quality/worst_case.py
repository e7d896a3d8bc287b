"""Worst case: how far changes too small to see can move a map while the answer stays.

A search for the farthest map (what an adversary would find), and the probability that noise alone
moves it so far (what a laboratory would meet). Both need many maps of one image; they are asked for
a few images at most.

Source of the two questions: Huang et al., "SAFARI: Versatile and Efficient Evaluations for
Robustness of Interpretability", ICCV 2023 (arXiv:2208.09418).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.agreement import distance, spearman
from pathology.map_quality.question import Question
from pathology.map_quality.rare_event import RareEvent, Value, monte_carlo, subset_simulation
from pathology.map_quality.scoring import Explain, Image
from pathology.map_quality.sensitivity import explained
from pathology.map_quality.stability import TOLERANCE, is_held

RADIUS = 2 / 255
"""Two steps of eight bits: less than a scanner's own noise."""


@dataclass(frozen=True, slots=True, eq=False)
class FarthestMap:
    """The farthest map that was found.

    Args:
        distance: ``(1 - rank correlation) / 2`` between it and the image's own: 0 the same, 0.5
            unrelated, 1 reversed. A lower bound: another search may find more. NaN with a note.
        image: ``(h, w, 3)`` that it is the map of.
        path: ``(rounds,)`` the distance after each round of the search.
        evaluations: images looked at.
        note: why there is no value.
    """

    distance: float
    image: Image
    path: NDArray[np.float64]
    evaluations: int
    note: str = ""


class _Moves:
    """Distance of the maps of changed images, -inf where the answer changes."""

    def __init__(
        self,
        question: Question,
        explain: Explain,
        radius: float,
        tolerance: float,
    ) -> None:
        if not radius > 0:
            raise ValueError(f"radius must be above 0, got {radius}")
        self.question, self.explain = question, explain
        self.radius, self.tolerance = radius, tolerance
        self.logits = question.logits([question.image])[0]
        self.map = explained(explain, question.image[None])[0]
        self.is_constant = bool(np.ptp(self.map) == 0)

    def images(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """From points in the cube [-1, 1] to images around the one."""
        change = self.radius * points.reshape(-1, *self.question.image.shape)
        return np.clip(self.question.image + change, 0, 1).astype(np.float32)

    def __call__(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        batch = self.question.batch
        return np.concatenate(
            [self._few(points[s : s + batch]) for s in range(0, len(points), batch)]
        )

    def _few(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        images = self.images(points)
        logits = self.question.logits(images)
        found = np.full(len(points), -math.inf)
        held = np.flatnonzero(is_held(self.logits, logits, self.question.target, self.tolerance))
        if len(held):
            for k, one in zip(held, explained(self.explain, images[held]), strict=True):
                rho = spearman(self.map, one)
                # A map that has become constant has no order, and is no farther than unrelated.
                found[k] = 0.5 if math.isnan(rho) else float(distance(rho))
        return found


def worst_change(
    question: Question,
    explain: Explain,
    rng: np.random.Generator,
    *,
    radius: float = RADIUS,
    rounds: int = 50,
    tolerance: float = TOLERANCE,
) -> FarthestMap:
    """The farthest map within a small cube around an image, by random search.

    Starts from the best of a batch of random corners; in each round a batch of proposals set a
    square of the change to other extremes, squares shrinking from half a side to a pixel, and the
    best replaces it if it is farther.

    Args:
        question: the image, the class explained and the network.
        explain: maps of images for the class.
        rng: of the search.
        radius: no colour of a pixel changes by more; images stay within [0, 1].
        rounds: of a batch of maps each.
        tolerance: see :func:`~pathology.map_quality.stability.is_held`.

    Source:
        The squares: Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv:1912.00049).
    """
    moves = _Moves(question, explain, radius, tolerance)
    if moves.is_constant:
        return FarthestMap(math.nan, question.image, np.empty(0), 1, "the map is constant")
    image, batch = question.image, question.batch
    height, width = image.shape[:2]
    best, found = np.zeros(image.size, np.float32), 0.0
    path = []
    for round_ in range(rounds):
        if round_ == 0:
            points = _signs(rng, (batch, image.size))
        else:
            side = max(1, round(min(height, width) * 0.5 * (1 - round_ / rounds) ** 2))
            points = np.repeat(best[None], batch, 0)
            for change in points.reshape(-1, *image.shape):
                top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
                window = change[top : top + side, left : left + side]
                # Half of the squares get one colour, half get grain.
                window[:] = _signs(rng, (1, 1, 3) if rng.random() < 0.5 else window.shape)
        values = moves(points)
        if values.max() > found:
            best, found = points[values.argmax()].copy(), float(values.max())
        path.append(found)
    return FarthestMap(found, moves.images(best[None])[0], np.array(path), 1 + rounds * batch)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (2 * rng.integers(0, 2, shape) - 1).astype(np.float32)


def chance_of_change(
    question: Question,
    explain: Explain,
    rng: np.random.Generator,
    *,
    least: float = 0.25,
    radius: float = RADIUS,
    rare: bool = True,
    samples: int = 200,
    runs: int = 1,
    tolerance: float = TOLERANCE,
) -> RareEvent:
    """The probability that noise moves a map at least so far while the answer stays.

    Args:
        question: the image, the class explained and the network.
        explain: maps of images for the class.
        rng: of the noise.
        least: distance, ``(1 - rank correlation) / 2``: 0.25 is a rank correlation of 0.5.
        radius: of the noise, uniform and by itself in each colour of each pixel.
        rare: by subset simulation; else plain Monte Carlo, for what is not rare.
        samples: images; of subset simulation, per level.
        runs: of subset simulation.
        tolerance: see :func:`~pathology.map_quality.stability.is_held`.
    """
    moves = _Moves(question, explain, radius, tolerance)
    if moves.is_constant:
        return RareEvent(math.nan, math.nan, math.nan, math.nan, 1, "the map is constant")
    value: Value = moves
    size = question.image.size
    if rare:
        return subset_simulation(value, size, least, rng, samples=samples, runs=runs)
    return monte_carlo(value, size, least, rng, samples=samples, batch=question.batch)
