"""Optical density of pixels, and which of them are stained tissue.

Light that passes a stain is weakened by a factor, so stains add up in optical density (Beer and
Lambert)::

    density = log10(white / light)        of red, green and blue; 0 for glass and what is brighter

as in :mod:`bcos_vit.stain_space`: light below one step of eight bits counts as one step.
"""

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]

PALEST = 0.1
"""Stained pixels are denser than this on average over the colours. Not in every colour, as others
ask for: pale eosin hardly absorbs red, and most of a pale stroma would have no say."""

PALEST_MOVED = 0.03
"""The same for Reinhard's method: it moves all colours, and would bleach what had no say."""

BLACKEST = 1.0
"""Denser than this in every colour, light below a tenth, is ink, carbon or what was not scanned."""

GREENEST = 0.8
"""Haematoxylin and eosin both absorb green most; ink and brown pigment absorb red or blue more."""


def density(pixels: NDArray[np.uint8], white: Vector) -> NDArray[np.float64]:
    """Optical density, base 10, of ``(..., 3)`` RGB pixels behind glass of colour ``white``."""
    levels = np.arange(256.0)[:, None].clip(1, white)
    table = np.log10(np.asarray(white) / levels)
    return np.stack([table[pixels[..., c], c] for c in range(3)], axis=-1)


def is_stained(densities: NDArray[np.float64], palest: float = PALEST) -> NDArray[np.bool_]:
    """Which pixels show haematoxylin or eosin: no glass, nothing black, no ink of other colours.

    Args:
        densities: ``(n, 3)`` optical densities.
        palest: what is no denser than this on average counts as glass.
    """
    red, green, blue = densities.T
    stained: NDArray[np.bool_] = red + green + blue > 3 * palest
    stained &= np.minimum(np.minimum(red, green), blue) < BLACKEST
    return stained & (green >= GREENEST * np.maximum(red, blue))
