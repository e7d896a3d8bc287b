"""A network whose exact map is known: linear in the pixels, so each owns what it adds."""

from dataclasses import dataclass

import numpy as np

from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Colour

LIGHT = 0.7
PALE = Colour((LIGHT, LIGHT, LIGHT))
"""Without evidence: what is filled by it adds nothing to the logit."""


@dataclass
class Planted:
    """Two classes; the second's logit is a weighted sum of darkness, the first's is 0."""

    image: np.ndarray
    weights: np.ndarray

    def score(self, images):
        logit = self.explain(images).sum((1, 2))
        return np.stack([np.zeros(len(images)), logit], 1)

    def explain(self, images):
        return ((LIGHT - images.astype(np.float64)) * self.weights).sum(-1)

    def question(self, target=1, **options):
        """About a class, the second one where nothing is said."""
        return Question(self.score, self.image, target, **options)

    @property
    def map(self):
        return self.explain(self.image[None])[0]


def plant(rng, side=16):
    """Pale tissue with a dark square, top left of the centre, that speaks for the class."""
    image = LIGHT + rng.uniform(-0.02, 0.02, (side, side, 3))
    weights = 0.02 * rng.normal(size=image.shape)
    square = slice(side // 4, side // 2)
    image[square, square] -= 0.4
    weights[square, square] += 0.2
    return Planted(image.astype(np.float32), weights)


def contestants(planted, rng):
    """The exact map, one of chance, and the exact one upside down."""
    chance = rng.permutation(planted.map.ravel()).reshape(planted.map.shape)
    return planted.map, chance, -planted.map
