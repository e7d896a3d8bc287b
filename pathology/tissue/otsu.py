"""Finding the tissue on a slide."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.geometry import Box, level0_length
from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide

BAND_PX = 2**21  # pixels of a slide read at once
HALO_PX = 6  # rows around a band that the filters look at: 4 sigma of the blur, half a window
WINDOW_PX = 5  # side of the window in which texture is measured

# Grey levels (0 to 255) above the glass. Glass and scanner noise stay below FAINT, the palest eosin
# lies above it; CLEAR is tissue wherever it is, so Otsu may not climb over it on slides of dark
# tissue; VIVID needs no texture to count.
FAINT, CLEAR, VIVID = 8, 12, 60
TEXTURED = 2


class TissueFinder(Protocol):
    """Anything that tells tissue from background on a slide."""

    def find(self, slide: Slide) -> SlideMap:
        """The fraction of tissue, in [0, 1], over the scanned part of ``slide``."""


@dataclass(frozen=True, slots=True)
class OtsuTissue:
    """Tissue as what is coloured and textured, with Otsu's threshold on colour.

    Stained tissue is coloured; glass, dust, shadows and a scanner's black or grey fill are grey.
    Colour is the largest less the smallest channel after division by the glass's own colour, so a
    tint of lamp or glass does not count. Its threshold is Otsu's, kept between 8 and 12 grey
    levels: a blank slide is not split in two, and dark tissue does not hide pale tissue. Stain that
    bled onto the glass is coloured but smooth, so all but vivid colour also needs texture.

    Ink of a marker is coloured, and vivid: it counts as tissue. What is grey, as unstained tissue,
    melanin or carbon, does not.

    Args:
        mpp: micrometres per pixel at which the slide is looked at, and of the map.
        min_area_um2: smaller pieces of tissue are dropped, in square micrometres.
        max_hole_um2: smaller holes are filled, in square micrometres. The default is less than half
            of a tile of 224 px at 0.5 um, so that no tile of glass counts as tissue.
        closing_um: gaps narrower than twice this are closed, in micrometres; 0 leaves them.

    Raises:
        ValueError: ``mpp`` is not positive, or another number is negative; or not finite.
    """

    mpp: float = 8.0
    min_area_um2: float = 20_000.0
    max_hole_um2: float = 5_000.0
    closing_um: float = 16.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mpp) or self.mpp <= 0:
            raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {self.mpp}")
        for name in ("min_area_um2", "max_hole_um2", "closing_um"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be finite and at least 0, got {value}")

    def find(self, slide: Slide) -> SlideMap:
        """The tissue over ``slide.bounds``: 1 inside, 0 outside, as float32.

        The slide is read in bands; besides them, memory is a few bytes per pixel of the map.

        Raises:
            SlideOpenError: the file is damaged, or gone.
        """
        # Imported here because it takes longer than all of the package's own modules.
        import skimage.filters
        import skimage.morphology

        filters: Any = skimage.filters  # typed in part only
        morphology: Any = skimage.morphology
        box = _whole_pixels(slide, self.mpp)
        colour, texture = self._measure(slide, box)
        counts = np.bincount(colour.reshape(-1), minlength=256)
        otsu = 0
        if np.count_nonzero(counts) > 1:
            otsu = filters.threshold_otsu(hist=(counts, np.arange(256)))
        is_tissue = colour > min(max(otsu, FAINT), CLEAR)
        is_tissue &= (texture > TEXTURED) | (colour > VIVID)
        radius = round(self.closing_um / self.mpp)
        if radius:
            is_tissue = morphology.closing(is_tissue, morphology.disk(radius))
        is_tissue = ~_without_small(~is_tissue, self.max_hole_um2 / self.mpp**2)
        is_tissue = _without_small(is_tissue, self.min_area_um2 / self.mpp**2)
        return SlideMap(is_tissue.astype(np.float32), box, slide.mpp, unit="fraction")

    def _measure(self, slide: Slide, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Colour and texture of every map pixel, in grey levels."""
        step = level0_length(1, self.mpp, slide.mpp.y)
        height = round(box.height / step)
        width = round(level0_length(box.width, slide.mpp.x, self.mpp))
        glass = glass_colour(slide.thumbnail(1024))
        colour = np.empty((height, width), np.uint8)
        texture = np.empty((height, width), np.uint8)
        rows = max(1, BAND_PX // width)
        for top in range(0, height, rows):
            count = min(rows, height - top)
            band = slide.read(
                Box(box.x, box.y + (top - HALO_PX) * step, box.width, (count + 2 * HALO_PX) * step),
                self.mpp,
            )
            inner = slice(HALO_PX, HALO_PX + count)
            relative = np.minimum(band / glass, 1) * np.float32(255)
            # Noise of three channels looks like colour, and like texture.
            smooth = ndimage.gaussian_filter(relative, (1, 1, 0), mode="nearest")
            colour[top : top + count] = np.rint(np.ptp(smooth, axis=2)[inner])
            texture[top : top + count] = np.rint(_texture(smooth[..., 1])[inner])
        return colour, texture


def glass_colour(thumbnail: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The commonest value of each channel among bright, little coloured pixels.

    White where there are next to none: a slide full of tissue must not lend its own colour.
    """
    peak = thumbnail.max(axis=2)
    is_glass = (peak >= 200) & (peak - thumbnail.min(axis=2) < 40)
    if is_glass.mean() < 0.01:
        return np.full(3, 255, np.float32)
    channels = [np.bincount(thumbnail[is_glass, c], minlength=256).argmax() for c in range(3)]
    return np.array(channels, np.float32)


def _texture(green: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation in a small window; green, where both haematoxylin and eosin absorb."""
    mean = ndimage.uniform_filter(green, WINDOW_PX, mode="nearest")
    square = ndimage.uniform_filter(green * green, WINDOW_PX, mode="nearest")
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(square - mean * mean, 0))
    return deviation


def _without_small(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Connected pieces of at least ``smallest`` pixels."""
    pieces, count = ndimage.label(mask)
    keep = np.bincount(pieces.reshape(-1), minlength=count + 1) >= smallest
    keep[0] = False
    kept: NDArray[np.bool_] = keep[pieces]
    return kept


def _whole_pixels(slide: Slide, mpp: float) -> Box:
    """The slide's bounds, grown to the right and down to whole pixels at ``mpp``."""
    sides = []
    for length, mpp0 in ((slide.bounds.width, slide.mpp.x), (slide.bounds.height, slide.mpp.y)):
        # Rounding must not add a pixel to a length that is whole already.
        pixels = math.ceil(length * mpp0 / mpp - 1e-6)
        sides.append(level0_length(max(1, pixels), mpp, mpp0))
    return Box(slide.bounds.x, slide.bounds.y, *sides)
