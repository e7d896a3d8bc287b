"""What a scanner filled in: black, or any other constant colour."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture
from pathology.tissue.pieces import widened

NEAR_BLACK = 32  # grey levels that a JPEG file's black may reach
UNEVEN = 4  # range of grey levels in a neighbourhood of black, from compression
RIM_PX = 2  # how near the picture's edge a piece is that touches it
RECTANGULAR = 0.97  # least share of its bounding box that a rectangle fills


@dataclass(frozen=True, slots=True)
class BlackFill:
    """Black that a scanner put where it did not scan.

    Even and near black, and touching the edge of the slide, or a large rectangle inside of it. Ink,
    dust and pigment are neither even at the scale of micrometres nor rectangular.

    Args:
        min_area_um2: smaller pieces are left, in square micrometres.
        rim_um: how far around it pixels are mixed with the black, in micrometres.

    Raises:
        ValueError: a number is negative or not finite.
    """

    min_area_um2: float = 20_000.0
    rim_um: float = 16.0

    def __post_init__(self) -> None:
        check_numbers(self)

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """The black fill, on the picture's pixels."""
        even = _range(picture.pixels) <= UNEVEN
        even &= picture.pixels.max(axis=2) <= NEAR_BLACK
        pieces, count = ndimage.label(even)
        areas = np.bincount(pieces.reshape(-1), minlength=count + 1)
        keep = areas * picture.mpp**2 >= self.min_area_um2
        keep[0] = False
        rim = np.ones(picture.shape, bool)
        rim[RIM_PX + 1 : -RIM_PX - 1, RIM_PX + 1 : -RIM_PX - 1] = False
        at_edge = np.zeros(count + 1, bool)
        at_edge[pieces[rim]] = True
        for piece, place in enumerate(ndimage.find_objects(pieces), start=1):
            if keep[piece] and not at_edge[piece]:
                height, width = (part.stop - part.start for part in place)
                keep[piece] = areas[piece] >= RECTANGULAR * height * width
        # The range in a window shrank every piece by one pixel.
        return picture.map(widened(keep[pieces], 1.5 + self.rim_um / picture.mpp))


def constant_fill(picture: Picture, min_area_um2: float = 40_000.0) -> NDArray[np.bool_]:
    """Large areas of exactly one colour, black, grey or white: nothing was scanned there."""
    flat = _range(picture.pixels) == 0
    pieces, count = ndimage.label(flat)
    keep = np.bincount(pieces.reshape(-1), minlength=count + 1) * picture.mpp**2 >= min_area_um2
    keep[0] = False
    return widened(keep[pieces], 1.5)


def _range(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest less smallest value in 3 x 3 pixels, of the channel in which it is largest."""
    ranges = [
        ndimage.maximum_filter(pixels[..., c], 3) - ndimage.minimum_filter(pixels[..., c], 3)
        for c in range(3)
    ]
    largest: NDArray[np.uint8] = np.maximum.reduce(ranges)
    return largest
