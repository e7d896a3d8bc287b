"""Max-sensitivity: how far a map moves under tiny noise on the image. Computed when asked for.

No headline: it does not even tell random maps from others and a constant map wins it (Hedström et
al. in arXiv:2412.10942); :mod:`pathology.map_quality.stability` asks what a laboratory would.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.scoring import BATCH, Explain, Image, check, stacks


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """``|map(x + noise) - map(x)| / |map(x)|``, Euclidean, over draws of the noise.

    Args:
        most: highest of the draws; low is steady.
        mean: of the draws.
        note: why there is no value.
    """

    most: float
    mean: float
    note: str = ""


def sensitivity(
    explain: Explain,
    image: Image,
    rng: np.random.Generator,
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch: int = BATCH,
) -> Sensitivity:
    """Max- and mean sensitivity of maps of one image.

    Args:
        explain: maps of images, of one class.
        image: ``(h, w, 3)`` RGB in [0, 1].
        rng: of the noise.
        radius: noise is uniform in plus or minus it, in light; images stay within [0, 1].
        samples: draws.
        batch: images per call.

    Raises:
        ValueError: no image.

    Source:
        Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019
        (arXiv:1901.09392), definition 2.
    """
    check(image)
    noises = (rng.uniform(-radius, radius, image.shape) for _ in range(samples))
    noisy = (np.clip(image + noise, 0, 1).astype(np.float32) for noise in noises)
    first = explained(explain, image[None])[0]
    length = float(np.linalg.norm(first))
    if length == 0:
        return Sensitivity(math.nan, math.nan, "the map is zero")
    moved = np.concatenate(
        [
            np.linalg.norm(explained(explain, some) - first, axis=(1, 2))
            for some in stacks(noisy, batch)
        ]
    )
    return Sensitivity(float(moved.max()) / length, float(moved.mean()) / length)


def explained(explain: Explain, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps of images ``(k, h, w, 3)``, ``(k, h, w)``.

    Raises:
        ValueError: maps of another shape, or not finite.
    """
    maps = np.asarray(explain(images), np.float64)
    if maps.shape != images.shape[:3] or not np.isfinite(maps).all():
        raise ValueError(
            f"explain must return finite maps {images.shape[:3]}, got shape {maps.shape},"
            f" {np.isfinite(maps).mean():.0%} of them finite"
        )
    return maps
