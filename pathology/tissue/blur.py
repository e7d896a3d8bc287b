"""Out of focus."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture
from pathology.tissue.pieces import grown, without_small


@dataclass(frozen=True, slots=True)
class Blur:
    """Long, narrow bands within tissue that are much denser than what is on both sides of them.

    Args:
        width_um: widest fold, in micrometres.
        length_um: shortest fold, in micrometres.

    Raises:
        ValueError: a number is negative or not finite.
    """

    width_um: float = 160.0
    length_um: float = 300.0

    def __post_init__(self) -> None:
        check_numbers(self)

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """The blur, on the picture's pixels."""
        return picture.map(np.zeros(picture.shape, bool))
