"""Ink of a marker."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture, least, most
from pathology.tissue.pieces import closed, grown, widened, without_small


@dataclass(frozen=True, slots=True)
class PenMarks:
    """Green, blue, red and black ink, by what H&E, DAB and melanin do not absorb.

    In optical densities R, G, B of the three channels:

    - green and blue: R well above G. Haematoxylin, the bluest of tissue, absorbs about as much red
      as green (R/G up to 1.2 on the bluest slides measured).
    - red: next to no R, and B about as strong as a strong G. Eosin absorbs half as much blue as
      green; haemoglobin about as much, but some red too.
    - black: all three strong and equal. Melanin and DAB absorb more blue than red, haematoxylin
      less.

    What has these colours cannot be told from ink: the collagen of a blue or green trichrome,
    Alcian blue; lakes of bright, orange-red blood; pigment that absorbs all colours alike, as coal
    dust; tissue of a scan so dim that its glass has less than 90 grey levels. Leave the mask out
    for them.

    Sure pixels are grown into paler ones of the same ink; what is too small is left.

    Args:
        min_area_um2: smaller marks are left, in square micrometres.
        rim_um: how far around it a mark bleeds, in micrometres.

    Raises:
        ValueError: a number is negative or not finite.
    """

    min_area_um2: float = 20_000.0
    rim_um: float = 16.0

    def __post_init__(self) -> None:
        check_numbers(self)

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """The ink, on the picture's pixels."""
        is_ink = np.zeros(picture.shape, bool)
        for sure, likely in self._inks(picture):
            mark = without_small(closed(grown(sure, likely), 2), self.min_area_um2 / picture.mpp**2)
            is_ink |= mark
        return picture.mask(widened(is_ink, self.rim_um / picture.mpp))

    def _inks(self, picture: Picture) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Sure and likely pixels of cool, red and black ink."""
        inks = [(np.zeros(picture.shape, bool), np.zeros(picture.shape, bool)) for _ in range(3)]
        for rows, density in picture.density():
            for (sure, likely), tests in zip(inks, (_cool, _red, _black), strict=True):
                sure[rows], likely[rows] = tests(density)
        return inks


def _cool(density: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Green and blue."""
    red, green = density[..., 0], density[..., 1]
    above = red - green
    likely = (above > 0.1) & (red > 1.2 * green)
    # Over dense tissue the ink's own colour is nearly lost, but hardly any red comes through.
    likely |= (red > 1.6) & (red > 1.05 * green)
    return (above > 0.25) & (red > 1.35 * green), likely


def _red(density: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    red, green, blue = np.moveaxis(density, 2, 0)
    sure = (green > 0.6) & (red < 0.14 * green) & (blue > 0.75 * green)
    return sure, (green > 0.3) & (red < 0.22 * green) & (blue > 0.7 * green)


def _black(density: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    weakest = least(density)
    even = weakest > 0.8 * most(density)
    return (weakest > 0.9) & even, (weakest > 0.4) & even
