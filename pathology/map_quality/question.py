"""What a measure asks a network: of one image, for one class, and of that image changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.scoring import (
    BATCH,
    Image,
    Quantity,
    Score,
    Squash,
    ask,
    check,
    check_target,
    said,
)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A class of an image, asked of a network.

    Args:
        score: the network.
        image: ``(h, w, 3)`` RGB in [0, 1].
        target: class explained.
        squash: from logits to probabilities.
        batch: images per call of the network.

    Raises:
        ValueError: no image.
    """

    score: Score
    image: Image
    target: int
    squash: Squash = "softmax"
    batch: int = BATCH

    def __post_init__(self) -> None:
        check(self.image)

    def logits(self, images: Iterable[Image]) -> NDArray[np.float64]:
        """``(k, classes)`` of images ``(h, w, 3)``, which may be made while they are asked for.

        Raises:
            ValueError: as :func:`~pathology.map_quality.scoring.ask`; a class that the network has
                not.
        """
        found = ask(self.score, images, self.batch)
        check_target(found, self.target)
        return found

    def falls(self, others: Iterable[Image], quantity: Quantity = "logit") -> NDArray[np.float64]:
        """By how much the class's logit (or probability) is higher for the image than for others.

        Returns:
            ``(k,)``, one for each of ``others``.
        """
        logits = self.logits(chain([self.image], others))
        values = said(logits, self.target, quantity, self.squash)
        return values[0] - values[1:]
