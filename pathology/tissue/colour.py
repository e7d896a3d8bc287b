"""Tissue by its colour."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.tissue.finder import PictureFinder, otsu_threshold
from pathology.tissue.picture import Picture

# Grey levels (0 to 255) above the glass. Glass and scanner noise stay below FAINT, the palest eosin
# lies above it; CLEAR is tissue wherever it is, so Otsu may not climb over it on slides of dark
# tissue; VIVID needs no texture to count.
FAINT, CLEAR, VIVID = 8, 12, 60
TEXTURED = 2


@dataclass(frozen=True, slots=True)
class OtsuTissue(PictureFinder):
    """Tissue as what is coloured and textured, with Otsu's threshold on colour.

    Stained tissue is coloured; glass, dust, shadows and a scanner's black or grey fill are grey.
    Colour is the largest less the smallest channel after division by the glass's own colour, so a
    tint of lamp or glass does not count. Its threshold is Otsu's, kept between 8 and 12 grey
    levels: a blank slide is not split in two, and dark tissue does not hide pale tissue. Stain that
    bled onto the glass is coloured but smooth, so all but vivid colour also needs texture.

    Ink of a marker is coloured, and vivid: it counts as tissue until :class:`PenMarks` takes it
    away. What is grey, as unstained tissue, melanin or carbon, does not.
    """

    def _candidates(self, picture: Picture) -> NDArray[np.bool_]:
        threshold = min(max(otsu_threshold(picture.colour), FAINT), CLEAR)
        is_tissue: NDArray[np.bool_] = picture.colour > threshold
        is_tissue &= (picture.texture > TEXTURED) | (picture.colour > VIVID)
        return is_tissue
