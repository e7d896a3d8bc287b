"""Edges of the coverslip, rims of bubbles and shadows at the margin."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.black import constant_fill
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture
from pathology.tissue.pieces import EIGHT, at_edge, closed, label_areas, widened

GREY = 0.2
"""Colour as a share of the light that is missing, at most; stains have 0.3 and more."""

FAINT = 6  # hundredths of optical density by which a line is darker than what is beside it
GAP_PX = 2  # gaps narrower than twice this do not cut a line
STRAIGHT_PX = 2.0  # how far from a line its pixels are, at most, on average
SHADOW, SMOOTH = 10, 4  # hundredths of density of a shadow; grey levels of its texture
RIM_PX = 2  # how near the picture's edge a shadow is that touches it


@dataclass(frozen=True, slots=True)
class CoverslipEdges:
    """Long, thin, grey lines, straight or curved, and grey shadows at the slide's margin.

    A coverslip's edge and a bubble's rim absorb or bend away all colours alike, are a few tens of
    micrometres wide and millimetres long. They are found on glass; where two pieces of one straight
    line end at tissue, the line between them is taken too. A shadow is grey, smooth, and touches
    the edge of the slide.

    Args:
        length_um: shortest line, in micrometres.
        width_um: widest line, in micrometres.
        min_shadow_um2: smaller shadows are left, in square micrometres.

    Raises:
        ValueError: a number is negative or not finite.
    """

    length_um: float = 1000.0
    width_um: float = 100.0
    min_shadow_um2: float = 100_000.0

    def __post_init__(self) -> None:
        check_numbers(self)

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """The lines and shadows, on the picture's pixels."""
        missing = (255 * GREY * (1 - np.exp(-np.arange(256) / 100))).astype(np.uint8)
        is_grey = picture.colour <= missing[picture.absorbance]
        is_grey &= ~constant_fill(picture)
        return picture.mask(self._lines(picture, is_grey) | self._shadows(picture, is_grey))

    def _lines(self, picture: Picture, is_grey: NDArray[np.bool_]) -> NDArray[np.bool_]:
        window = 1 + 2 * round(self.width_um / picture.mpp / 2 + 1)
        beside = ndimage.grey_opening(picture.absorbance, size=(window, window))
        thin = closed((picture.absorbance - beside >= FAINT) & is_grey, GAP_PX)
        pieces, count = ndimage.label(thin, EIGHT)
        keep = np.zeros(count + 1, bool)
        straight = []
        for piece, place in enumerate(ndimage.find_objects(pieces), start=1):
            height, width = (part.stop - part.start for part in place)
            apart = float(np.hypot(height, width))
            if apart * picture.mpp < self.length_um:
                continue
            y, x = np.nonzero(pieces[place] == piece)
            if len(x) / apart * picture.mpp > self.width_um:
                continue
            keep[piece] = True
            line = _straight_line(x + place[1].start, y + place[0].start)
            if line is not None:
                straight.append(line)
        return widened(keep[pieces] | _bridges(straight, picture.shape), 1)

    def _shadows(self, picture: Picture, is_grey: NDArray[np.bool_]) -> NDArray[np.bool_]:
        dim = is_grey & (picture.absorbance >= SHADOW) & (picture.texture <= SMOOTH)
        pieces, count = ndimage.label(dim)
        keep = at_edge(pieces, count, RIM_PX)
        keep &= label_areas(pieces, count) * picture.mpp**2 >= self.min_shadow_um2
        return widened(keep[pieces], 1)


def _straight_line(
    x: NDArray[np.intp], y: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Both ends of the line through some pixels, ``None`` where they lie on no straight one."""
    points = np.stack([x, y], axis=1).astype(np.float64)
    centre = points.mean(axis=0)
    _, _, (along, across) = np.linalg.svd(points - centre, full_matrices=False)
    if np.abs((points - centre) @ across).mean() > STRAIGHT_PX:
        return None
    distance = (points - centre) @ along
    return centre + distance.min() * along, centre + distance.max() * along


def _bridges(
    lines: list[tuple[NDArray[np.float64], NDArray[np.float64]]], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """What lies between two pieces of one straight line."""
    image = Image.new("1", shape[::-1])
    draw = ImageDraw.Draw(image)
    for first, second in combinations(lines, 2):
        if all(
            _off(point, a) <= 2 * STRAIGHT_PX
            for a, b in ((first, second), (second, first))
            for point in b
        ):
            ends = min(
                ((p, q) for p in first for q in second), key=lambda pq: np.hypot(*(pq[0] - pq[1]))
            )
            draw.line([tuple(map(float, end)) for end in ends], fill=1, width=3)
    return np.asarray(image)


def _off(point: NDArray[np.float64], line: tuple[NDArray[np.float64], ...]) -> float:
    """How far a point is from the endless line through two ends."""
    along = line[1] - line[0]
    x, y = point - line[0]
    return float(abs(along[0] * y - along[1] * x) / np.hypot(*along))
