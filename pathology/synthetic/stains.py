"""Haematoxylin and eosin: stain vectors of a slide, and colour from their concentrations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Unit vectors of absorption for red, green and blue, the usual reference for H&E.
HAEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)


@dataclass(frozen=True, slots=True)
class Stains:
    """How one slide was stained and scanned.

    Args:
        haematoxylin: absorption of red, green and blue by one unit of haematoxylin.
        eosin: the same for eosin.
        white: intensity of bare glass per channel, 0 to 255.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    white: tuple[float, float, float]


def draw_stains(rng: np.random.Generator) -> Stains:
    """Draws the staining of one slide: hue, strength of both stains, tint of the glass."""

    def vary(vector: tuple[float, float, float]) -> tuple[float, float, float]:
        hue = np.asarray(vector) + rng.normal(0.0, 0.022, 3)
        hue = hue / np.linalg.norm(hue) * rng.uniform(0.86, 1.16)
        return float(hue[0]), float(hue[1]), float(hue[2])

    haematoxylin, eosin = vary(HAEMATOXYLIN), vary(EOSIN)
    white = rng.uniform(240.0, 247.0) + rng.normal(0.0, 1.0, 3)
    return Stains(haematoxylin, eosin, (float(white[0]), float(white[1]), float(white[2])))


def stain_to_rgb(
    haematoxylin: NDArray[np.float32], eosin: NDArray[np.float32], stains: Stains
) -> NDArray[np.float32]:
    """Transmitted light behind two stains, by Beer and Lambert.

    Args:
        haematoxylin: concentration per pixel, natural-log optical density, shape (h, w).
        eosin: the same for eosin.
        stains: the slide's stain vectors and white.

    Returns:
        Intensities from 0 to the slide's white, float32, shape (h, w, 3).
    """
    rgb = np.empty((*haematoxylin.shape, 3), np.float32)
    for channel in range(3):
        density = haematoxylin * np.float32(-stains.haematoxylin[channel])
        density -= eosin * np.float32(stains.eosin[channel])
        rgb[..., channel] = np.exp(density) * np.float32(stains.white[channel])
    return rgb
