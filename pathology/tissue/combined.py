"""Tissue by texture, colour and density together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.tissue.black import constant_fill
from pathology.tissue.finder import PictureFinder
from pathology.tissue.picture import Picture
from pathology.tissue.pieces import grown, without_small

# Grey levels of colour and texture, hundredths of optical density.
SURE_COLOUR, SURE_DENSITY, SURE_TEXTURE, VIVID = 10, 5, 3, 60
LIKELY_COLOUR, LIKELY_DENSITY, LIKELY_TEXTURE = 6, 3, 2
SEED_PX = 5

GREY = 0.15
"""Colour as a share of the light that is missing; stains have 0.3 and more, dust and shadow 0.1."""


@dataclass(frozen=True, slots=True)
class CombinedTissue(PictureFinder):
    """Tissue as what is sure, and whatever pale and textured is joined to it.

    Sure is what is coloured, denser than glass, and textured (or vivid). From there it grows into
    what shows more texture than the glass does, and any colour or density: pale stroma, mucus, fat.
    What absorbs all colours alike is dust, shadow, a bubble's rim or a scanner's fill. No threshold
    depends on how much tissue there is, so full and nearly empty slides are treated alike. Areas of
    exactly one colour were not scanned.
    """

    def _candidates(self, picture: Picture) -> NDArray[np.bool_]:
        colour, density, texture = picture.colour, picture.absorbance, picture.texture
        levels = np.arange(256) / 100
        missing = (255 * GREY * (1 - np.exp(-levels))).astype(np.uint8)
        is_stain = (colour > missing[density]) & ~constant_fill(picture)
        sure = (colour > SURE_COLOUR) & (density > SURE_DENSITY) & is_stain
        sure &= (texture > SURE_TEXTURE) | (colour > VIVID)
        likely = ((colour > LIKELY_COLOUR) | (density > LIKELY_DENSITY)) & is_stain
        likely &= (texture > max(LIKELY_TEXTURE, 2 * _glass_texture(picture))) | (colour > VIVID)
        # A few pixels alone are noise, and no seed.
        return grown(without_small(sure, SEED_PX), likely | sure)


def _glass_texture(picture: Picture) -> int:
    """Median texture where next to no light is missing; 0 where there is no such place."""
    bare = picture.texture[picture.absorbance <= LIKELY_DENSITY]
    return int(np.median(bare)) if bare.size else 0
