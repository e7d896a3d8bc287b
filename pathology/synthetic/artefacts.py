"""Artefacts painted onto an image of a slide, with the exact pixels that each took.

Made to measure how well masks find them. Light is handled as optical density where the artefact
absorbs (ink, folds, edges), as Beer and Lambert have it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Ink = Literal["green", "blue", "red", "black"]

INKS: dict[str, tuple[float, float, float]] = {
    "green": (1.7, 0.55, 0.95),
    "blue": (2.0, 1.2, 0.35),
    "red": (0.12, 1.7, 1.55),
    "black": (2.1, 2.1, 2.05),
}
"""Optical density of a full stroke of a marker in red, green and blue."""


@dataclass(frozen=True, slots=True)
class Painted:
    """An image with an artefact on it.

    Args:
        rgb: ``(height, width, 3)`` uint8.
        mask: ``(height, width)``, the pixels that the artefact took.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def paint_pen(
    rgb: NDArray[np.uint8],
    mpp: float,
    rng: np.random.Generator,
    ink: Ink,
    *,
    width_um: float = 300.0,
    strength: float = 1.0,
) -> Painted:
    """A marker's stroke along a smooth curve across the image, a little streaky along its way.

    Args:
        rgb: ``(height, width, 3)`` uint8; not changed.
        mpp: micrometres per pixel.
        rng: where the stroke goes.
        ink: colour of the marker.
        width_um: width of the stroke.
        strength: 1 for a full stroke, less for a thin or washed one.
    """
    height, width = rgb.shape[:2]
    mask = _stroke(height, width, _curve(rng, height, width), width_um / mpp)
    streaks = ndimage.gaussian_filter(rng.normal(size=(height // 8 + 1, width // 8 + 1)), 2)
    streaks = np.kron(streaks / streaks.std(), np.ones((8, 8)))[:height, :width]
    density = strength * (1 + 0.12 * streaks.clip(-2.5, 2.5))[..., None] * np.array(INKS[ink])
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 3.0 / mpp)[..., None]
    return Painted(_absorb(rgb, soft * density), mask)


def paint_fold(
    rgb: NDArray[np.uint8],
    mpp: float,
    rng: np.random.Generator,
    tissue: NDArray[np.bool_],
    *,
    width_um: float = 80.0,
    layers: int = 3,
) -> Painted:
    """A curved band in which tissue lies over itself: two or, pleated, three layers.

    The further layers are tissue from beside the band, as when it is pushed together.

    Args:
        rgb: ``(height, width, 3)`` uint8; not changed.
        mpp: micrometres per pixel.
        rng: where the fold goes.
        tissue: ``(height, width)``; there is nothing to fold elsewhere.
        width_um: width of the band.
        layers: of tissue within it.
    """
    height, width = tissue.shape
    band = _stroke(height, width, _curve(rng, height, width), width_um / mpp) & tissue
    shift = round(1.5 * width_um / mpp)
    extra = np.zeros(rgb.shape, np.float32)
    for layer in range(1, layers):
        beside = np.roll(rgb, (shift * layer, -shift * layer), (0, 1)).astype(np.float32)
        extra -= np.log(np.maximum(beside, 8) / 245)
    soft = ndimage.gaussian_filter(band.astype(np.float32), 2.0 / mpp)[..., None]
    return Painted(_absorb(rgb, soft * np.maximum(extra, 0)), band)


def paint_blur(
    rgb: NDArray[np.uint8],
    mpp: float,
    rng: np.random.Generator,
    *,
    sigma_um: float = 4.0,
    share: float = 0.3,
) -> Painted:
    """A round region out of focus; noise of the sensor is on it as elsewhere.

    Args:
        rgb: ``(height, width, 3)`` uint8; not changed.
        mpp: micrometres per pixel.
        rng: where the region lies, and the noise.
        sigma_um: standard deviation of the blur.
        share: of the image's shorter side that the region's radius is.
    """
    height, width = rgb.shape[:2]
    y, x = rng.uniform(0.35, 0.65, 2) * (height, width)
    rows, columns = np.ogrid[:height, :width]
    mask = (rows - y) ** 2 + (columns - x) ** 2 < (share * min(height, width)) ** 2
    blurred = ndimage.gaussian_filter(rgb.astype(np.float32), (sigma_um / mpp,) * 2 + (0,))
    blurred += rng.normal(0, 1.5, rgb.shape)
    out = np.where(mask[..., None], np.rint(blurred).clip(0, 255), rgb).astype(np.uint8)
    return Painted(out, mask)


def paint_edge(
    rgb: NDArray[np.uint8],
    mpp: float,
    rng: np.random.Generator,
    *,
    width_um: float = 30.0,
    density: float = 0.5,
    bubble: bool = False,
) -> Painted:
    """The grey line of a coverslip's edge along one side, or the round rim of a bubble.

    Args:
        rgb: ``(height, width, 3)`` uint8; not changed.
        mpp: micrometres per pixel.
        rng: where the line goes.
        width_um: width of the line.
        density: optical density of the line, the same in all colours.
        bubble: a bubble at the corner instead of a line.
    """
    height, width = rgb.shape[:2]
    if bubble:
        angle = np.linspace(0, np.pi / 2, 200)
        radius = rng.uniform(0.25, 0.35) * min(height, width)
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    else:
        x = rng.uniform(0.03, 0.08) * width
        lean = rng.uniform(-0.02, 0.02) * height
        points = np.array([[x, -10.0], [x + lean, height + 10.0]])
    mask = _stroke(height, width, points, width_um / mpp)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 4.0 / mpp)[..., None]
    return Painted(_absorb(rgb, soft * np.full(3, density)), mask)


def paint_tint(
    rgb: NDArray[np.uint8],
    mpp: float,
    rng: np.random.Generator,
    *,
    gains: tuple[float, float, float] = (0.95, 1.0, 0.9),
) -> Painted:
    """The whole image as by another scanner, whose colours are not the same.

    Args:
        rgb: ``(height, width, 3)`` uint8; not changed.
        mpp: micrometres per pixel; of no effect.
        rng: of no effect.
        gains: what red, green and blue are multiplied by.
    """
    tinted = np.rint(rgb * np.array(gains)).clip(0, 255).astype(np.uint8)
    return Painted(tinted, np.ones(rgb.shape[:2], bool))


def paint_black(
    rgb: NDArray[np.uint8], mpp: float, rng: np.random.Generator, *, share: float = 0.2
) -> Painted:
    """Black along the right side and in a corner, as where a scanner did not scan.

    Args:
        rgb: ``(height, width, 3)`` uint8; not changed.
        mpp: micrometres per pixel; of no effect.
        rng: how black, and how wide to within a tenth.
        share: of the width that the band takes.
    """
    height, width = rgb.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[:, round(width * (1 - share * rng.uniform(0.9, 1.1))) :] = True
    mask[: height // 6, : width // 5] = True
    out = rgb.copy()
    out[mask] = int(rng.integers(0, 8))
    return Painted(out, mask)


def _curve(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """``(n, 2)`` points x, y of a gentle curve through the middle of the image."""
    along = np.linspace(-0.32, 0.32, 100) * min(height, width)
    bend = rng.uniform(-0.12, 0.12) * min(height, width)
    across = bend * np.cos(np.linspace(-2, 2, 100) + rng.uniform(-1, 1))
    angle = rng.uniform(0, np.pi)
    x = width * rng.uniform(0.45, 0.55) + along * np.cos(angle) - across * np.sin(angle)
    y = height * rng.uniform(0.45, 0.55) + along * np.sin(angle) + across * np.cos(angle)
    return np.stack([x, y], axis=1)


def _stroke(
    height: int, width: int, points: NDArray[np.float64], thickness: float
) -> NDArray[np.bool_]:
    """The pixels within half a thickness of a line through points x, y."""
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    line = [(float(x), float(y)) for x, y in points]
    draw.line(line, fill=1, width=max(1, round(thickness)), joint="curve")
    return np.asarray(image)


def _absorb(rgb: NDArray[np.uint8], density: NDArray[Any]) -> NDArray[np.uint8]:
    """Light behind a further absorber."""
    return np.rint(rgb * np.exp(-density)).astype(np.uint8)
