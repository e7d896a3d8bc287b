"""What removed pixels are replaced by: fillings that leave an image of tissue an image of tissue.

What a network says of an image with pixels removed depends on what is put in their place, and black
squares are nothing that it has seen. Replacements are made in RGB, before any encoding: zeros in
the six channels of a B-cos network are no colour.

A filling is called with an image and where it was removed::

    fill(image (h, w, 3), removed (h, w) bool) -> image (h, w, 3)

``glass``, ``mean``, ``blur`` and ``tile`` put another picture there, which hides the removed
pixels' own values but not always their shape; ``local_mean`` and ``inpainting`` are made of what is
left around, and hide their shape as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from pathology.map_quality.scoring import Image

Mask = NDArray[np.bool_]
Fill = Callable[[Image, Mask], Image]

DARKEST = 1 / 255
PALEST = 0.1
"""What is denser than this on average over the colours is tissue (optical density, base 10)."""
WHITE = 240 / 255
"""Glass, where none can be seen: the customary 240 of 255."""

_NEAR = (((0, 1), 1 / 6), ((1, 0), 1 / 6), ((1, 1), 1 / 12), ((1, -1), 1 / 12))


def optical_density(images: NDArray[np.floating], white: float = WHITE) -> NDArray[np.float64]:
    """``log10(white / light)`` of RGB in [0, 1]; 0 for what is brighter than glass."""
    light = np.clip(np.asarray(images, np.float64), DARKEST, white)
    density: NDArray[np.float64] = np.log10(white / light)
    return density


def is_tissue(images: NDArray[np.floating]) -> Mask:
    """Which pixels ``(..., h, w, 3)`` are no glass."""
    found: Mask = optical_density(images).mean(-1) > PALEST
    return found


def glass_colour(images: NDArray[np.floating], least: int = 100) -> tuple[float, float, float]:
    """The mean colour of glass in images ``(..., h, w, 3)``; 240 of 255 where too little is seen.

    Args:
        images: RGB in [0, 1], of the training split.
        least: pixels of glass to go by.
    """
    glass = np.asarray(images, np.float64)[~is_tissue(images)]
    if len(glass) < least:
        return (WHITE, WHITE, WHITE)
    red, green, blue = glass.mean(0)
    return (float(red), float(green), float(blue))


@dataclass(frozen=True, slots=True)
class Colour:
    """One colour: ``glass``, by default.

    Args:
        colour: red, green and blue in [0, 1]; the data's own glass is :func:`glass_colour`.
    """

    colour: tuple[float, float, float] = (WHITE, WHITE, WHITE)

    def __call__(self, image: Image, removed: Mask) -> Image:
        filled = image.copy()
        filled[removed] = self.colour
        return filled


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean colour of the whole image, removed pixels included."""

    def __call__(self, image: Image, removed: Mask) -> Image:
        filled = image.copy()
        filled[removed] = image.mean((0, 1), dtype=np.float64)
        return filled


@dataclass(frozen=True, slots=True)
class Blur:
    """The image out of focus: colours stay, nuclei go. Removed pixels still shine through.

    Args:
        sigma: of the Gaussian, as a share of the image's shorter side.
    """

    sigma: float = 0.05

    def __call__(self, image: Image, removed: Mask) -> Image:
        width = self.sigma * min(image.shape[:2])
        filled = image.copy()
        filled[removed] = gaussian_filter(image, (width, width, 0), mode="reflect")[removed]
        return filled


@dataclass(frozen=True, slots=True, eq=False)
class OtherTile:
    """The same place of another tile, such as one of normal tissue.

    Args:
        other: ``(h, w, 3)`` RGB in [0, 1], of the image's size.
    """

    other: Image

    def __call__(self, image: Image, removed: Mask) -> Image:
        if self.other.shape != image.shape:
            raise ValueError(
                f"the other tile must have the image's shape {image.shape}, got {self.other.shape}"
            )
        return np.where(removed[..., None], self.other, image).astype(image.dtype, copy=False)


@dataclass(frozen=True, slots=True)
class LocalMean:
    """The mean of what is left nearby (normalised convolution), nearer pixels counting more.

    Args:
        sigma: of the Gaussian weights, as a share of the image's shorter side; doubled for pixels
            that see nothing within it, until they do.
    """

    sigma: float = 0.05

    def __call__(self, image: Image, removed: Mask) -> Image:
        filled = image.copy()
        if removed.all():
            return Mean()(image, removed)
        width, missing = self.sigma * min(image.shape[:2]), removed.copy()
        left = ~removed
        while missing.any():
            weight = gaussian_filter(left.astype(np.float64), width, mode="constant")
            total = gaussian_filter(
                np.where(left[..., None], image, 0).astype(np.float64),
                (width, width, 0),
                mode="constant",
            )
            # Truncated at four sigmas: beyond, rounding alone would decide the colour.
            seen = missing & (weight > 1e-6)
            filled[seen] = np.clip(total[seen] / weight[seen, None], 0, 1)
            missing &= ~seen
            width *= 2
        return filled


@dataclass(frozen=True, slots=True)
class Inpainting:
    """Every removed pixel is the weighted mean of its neighbours: 1/6 direct, 1/12 diagonal.

    A sparse linear system over the removed pixels; at the border the weights of the neighbours that
    exist are scaled to sum to one. With noise it is ROAD's imputation.

    Source:
        Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML
        2022 (arXiv:2202.00449), section 5.
    """

    def __call__(self, image: Image, removed: Mask) -> Image:
        if not removed.any():
            return image.copy()
        if removed.all():
            return Mean()(image, removed)
        height, width = removed.shape
        place = np.full((height, width), -1)
        count = int(removed.sum())
        place[removed] = np.arange(count)
        rows, columns, entries = [], [], []
        diagonal, known = np.zeros(count), np.zeros((count, 3))
        for (down, right), weight in _NEAR:
            here, there = _pairs(height, width, down, right)
            for one, other in ((here, there), (there, here)):
                ours = place[one]
                theirs, colours = place[other][ours >= 0], image[other][ours >= 0]
                ours = ours[ours >= 0]
                diagonal += weight * np.bincount(ours, minlength=count)
                unknown = theirs >= 0
                rows.append(ours[unknown])
                columns.append(theirs[unknown])
                entries.append(np.full(int(unknown.sum()), -weight))
                for c in range(3):
                    known[:, c] += np.bincount(
                        ours[~unknown], weight * colours[~unknown, c], minlength=count
                    )
        rows.append(np.arange(count))
        columns.append(np.arange(count))
        entries.append(diagonal)
        at = (np.concatenate(rows), np.concatenate(columns))
        system = coo_array((np.concatenate(entries), at), shape=(count, count)).tocsc()
        # Symmetric and diagonally dominant: no pivoting, which keeps the factor sparse.
        factor = splu(
            system,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        filled = image.copy()
        filled[removed] = np.clip(factor.solve(known), 0, 1)
        return filled


def _pairs(
    height: int, width: int, down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of all pixels that have a neighbour so far away, and of those neighbours."""
    left, far = (slice(0, width - right), slice(right, width)) if right >= 0 else (
        slice(-right, width),
        slice(0, width + right),
    )  # fmt: skip
    return (slice(0, height - down), left), (slice(down, height), far)


FILLS: dict[str, Callable[..., Fill]] = {
    "glass": Colour,
    "mean": Mean,
    "blur": Blur,
    "local_mean": LocalMean,
    "inpainting": Inpainting,
    "tile": OtherTile,
}
"""Fillings by name."""


def make_fill(name: str, **settings: Any) -> Fill:
    """A filling by name.

    Args:
        name: a key of :data:`FILLS`.
        **settings: its own: ``colour`` of ``glass``, ``sigma`` of ``blur`` and ``local_mean``,
            ``other`` of ``tile``.

    Raises:
        ValueError: no such filling, or no such setting.
    """
    if name not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(FILLS)}, got {name!r}")
    try:
        return FILLS[name](**settings)
    except TypeError as error:
        raise ValueError(f"fill {name}: {error}") from None
