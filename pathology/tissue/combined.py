"""Tissue by texture, colour and density together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.tissue.black import constant_fill
from pathology.tissue.finder import PictureFinder
from pathology.tissue.picture import Picture
from pathology.tissue.pieces import grown


@dataclass(frozen=True, slots=True)
class CombinedTissue(PictureFinder):
    """Tissue as what is sure, and whatever pale and textured is joined to it.

    Sure is what is both coloured and denser than glass, and textured. From there it grows into
    what shows texture above the glass's own and any colour or density: pale stroma, mucus, fat.
    No threshold depends on how much tissue there is on the slide, so slides full of it and nearly
    empty ones are treated alike. Areas of exactly one colour were not scanned and are no tissue.
    """

    def _candidates(self, picture: Picture) -> NDArray[np.bool_]:
        colour, density, texture = picture.colour, picture.absorbance, picture.texture
        sure = (colour > 10) & (density > 5) & (texture > 3)
        rough = texture > max(2, 2 * int(np.median(texture[density <= 3])) if (density <= 3).any() else 2)
        likely = rough & ((colour > 6) | (density > 3))
        is_tissue: NDArray[np.bool_] = grown(sure, likely) & ~constant_fill(picture)
        return is_tissue
