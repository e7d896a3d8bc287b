"""What a tissue finder is, and the size parameters that all of ours share."""

import math
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.picture import Picture, take_picture
from pathology.tissue.pieces import label_areas, tidied


class TissueFinder(Protocol):
    """Anything that tells tissue from background on a slide."""

    def find(self, slide: Slide) -> SlideMap:
        """The fraction of tissue, in [0, 1], over the scanned part of ``slide``."""


@dataclass(frozen=True, slots=True)
class PictureFinder:
    """A finder that looks at one small picture of the slide; each says which pixels are tissue.

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
        check_numbers(self)

    def find(self, slide: Slide) -> SlideMap:
        """The tissue over ``slide.bounds``: 1 inside, 0 outside, as float32.

        The slide is read in bands; besides them, memory is a few bytes per pixel of the map.

        Raises:
            SlideOpenError: the file is damaged, or gone.
        """
        return self.find_in(take_picture(slide, self.mpp))

    def find_in(self, picture: Picture) -> SlideMap:
        """The tissue on a picture that was taken already, at any mpp."""
        mask = self._candidates(picture)
        sizes = (self.closing_um, self.max_hole_um2, self.min_area_um2)
        return picture.map(tidied(mask, picture.mpp, *sizes))

    def _candidates(self, picture: Picture) -> NDArray[np.bool_]:
        """The pixels that look like tissue on their own."""
        raise NotImplementedError


def check_numbers(thing: object) -> None:
    """Refuse a dataclass whose ``mpp`` is not positive, or another number of which is negative.

    Raises:
        ValueError: naming the field.
    """
    for field in fields(thing):  # type: ignore[arg-type]
        value = getattr(thing, field.name)
        if field.name == "mpp":
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {value}")
        elif not math.isfinite(value) or value < 0:
            raise ValueError(f"{field.name} must be finite and at least 0, got {value}")


def otsu_threshold(grey: NDArray[np.uint8]) -> int:
    """Otsu's threshold on grey levels; 0 where there is one level only."""
    # Imported here because it takes longer than all of the package's own modules.
    import skimage.filters

    counts = label_areas(grey, 255)
    if np.count_nonzero(counts) < 2:
        return 0
    return int(skimage.filters.threshold_otsu(hist=(counts, np.arange(256))))
