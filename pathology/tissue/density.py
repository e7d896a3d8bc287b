"""Tissue by how much light it takes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.tissue.black import constant_fill
from pathology.tissue.finder import PictureFinder, otsu_threshold
from pathology.tissue.picture import Picture

# Hundredths of optical density over the glass; as for colour, between the palest tissue and what is
# tissue wherever it is.
FAINT, CLEAR = 4, 6
TEXTURED = 2
DENSE = 25  # needs no texture to count
BLACK = 230  # a tenth of the light; tissue has at most 2.0 over 8 um, noise in black has more


@dataclass(frozen=True, slots=True)
class DensityTissue(PictureFinder):
    """Tissue as what absorbs light and is textured, with Otsu's threshold on optical density.

    Sees whatever absorbs, of any colour and of none: IHC, special stains, pigment, unstained
    tissue. So it also takes large dirt, dust and ink for tissue, and needs the artefacts' masks
    more than the colour finder does. The density is the mean of the three channels' (natural
    logarithm, relative to the glass); its threshold is Otsu's, kept between 0.04 and 0.06.
    Areas of exactly one colour were not scanned and are no tissue.
    """

    def _candidates(self, picture: Picture) -> NDArray[np.bool_]:
        threshold = min(max(otsu_threshold(picture.absorbance), FAINT), CLEAR)
        is_tissue: NDArray[np.bool_] = picture.absorbance > threshold
        is_tissue &= (picture.texture > TEXTURED) | (picture.absorbance > DENSE)
        is_tissue &= (picture.absorbance < BLACK) & ~constant_fill(picture)
        return is_tissue
