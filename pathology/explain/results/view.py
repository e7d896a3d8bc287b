"""What pictures show of a slide besides the map; it stays when the slide is closed."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Mpp, Size
from pathology.slides import Slide

THUMBNAIL_PX = 2000


@dataclass(frozen=True, eq=False)
class SlideView:
    """A slide as pictures need it.

    Args:
        size: the slide in level-0 pixels.
        mpp: micrometres per level-0 pixel.
        thumbnail: ``(height, width, 3)``, the whole slide.
    """

    size: Size
    mpp: Mpp
    thumbnail: NDArray[np.uint8]

    @classmethod
    def of(cls, slide: Slide, max_px: int = THUMBNAIL_PX) -> Self:
        """An open slide, with its longer side at ``max_px`` pixels."""
        return cls(slide.size, slide.mpp, slide.thumbnail(max_px))

    def __repr__(self) -> str:
        height, width = self.thumbnail.shape[:2]
        return f"SlideView({self.size}, {self.mpp}, thumbnail of {width} x {height} px)"
