"""What a scanner filled in: black, or any other constant colour."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture, most
from pathology.tissue.pieces import at_edge, label_areas, widened, without_small

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
        dark = most(picture.pixels) <= NEAR_BLACK
        if not dark.any():
            return picture.mask(dark)
        pieces, count = ndimage.label(dark & (_range(picture.pixels) <= UNEVEN))
        areas = label_areas(pieces, count)
        keep = areas * picture.mpp**2 >= self.min_area_um2
        keep[0] = False
        touches = at_edge(pieces, count, RIM_PX)
        for piece, place in enumerate(ndimage.find_objects(pieces), start=1):
            if keep[piece] and not touches[piece]:
                height, width = (part.stop - part.start for part in place)
                keep[piece] = areas[piece] >= RECTANGULAR * height * width
        # The range in a window shrank every piece by one pixel.
        return picture.mask(widened(keep[pieces], 1.5 + self.rim_um / picture.mpp))


def constant_fill(picture: Picture, min_area_um2: float = 40_000.0) -> NDArray[np.bool_]:
    """Large areas of exactly one colour, black, grey or white: nothing was scanned there."""
    pixels = picture.pixels
    flat = np.ones(picture.shape, bool)
    flat[:, 1:] = _same(pixels[:, 1:], pixels[:, :-1])
    flat[1:] &= _same(pixels[1:], pixels[:-1])
    # Equal to the neighbours above and to the left: the first row and column of an area are not.
    return widened(without_small(flat, min_area_um2 / picture.mpp**2), 1)


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Equal in all three channels."""
    same: NDArray[np.bool_] = most(one ^ other) == 0
    return same


def _range(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest less smallest value in 3 x 3 pixels, of the channel in which it is largest."""
    ranges = [
        ndimage.maximum_filter(pixels[..., c], 3) - ndimage.minimum_filter(pixels[..., c], 3)
        for c in range(3)
    ]
    largest: NDArray[np.uint8] = np.maximum.reduce(ranges)
    return largest
