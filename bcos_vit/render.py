"""Numbers to pixels: signed heatmaps, overlays and the colours of W(x); values are never changed.

Zero is white, positive orange to brown, negative blue. The colours are laid out in CIELAB with one
lightness for both signs, so neither sign looks stronger than the other, a grey print shows
``|value|``, and blue against orange stays apart for every common colour vision.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

STEPS = 256
"""Colours from zero to the limit, per sign."""

UNCOVERED = (222, 222, 222)
"""The grey of NaN: nothing was measured there, which is not the same as zero."""

# Hue in degrees and chroma at zero, half way and at the limit; the largest that sRGB holds at the
# lightness of LIGHTNESS, with a margin.
POSITIVE = (57.0, (0.0, 60.0, 50.0))
NEGATIVE = (272.0, (0.0, 42.0, 36.0))
LIGHTNESS = (97.5, 35.0)


def _side(hue: float, chroma: tuple[float, float, float]) -> NDArray[np.uint8]:
    """The ``(STEPS, 3)`` sRGB colours of one sign, from zero outwards (CIE 15, IEC 61966-2-1)."""
    t = np.linspace(0.0, 1.0, STEPS)
    light = np.interp(t, (0.0, 1.0), LIGHTNESS)
    radius = np.interp(t, (0.0, 0.5, 1.0), chroma)
    angle = np.radians(hue)
    f_y = (light + 16.0) / 116.0
    f_xyz = np.stack(
        [f_y + radius * np.cos(angle) / 500.0, f_y, f_y - radius * np.sin(angle) / 200.0], axis=1
    )
    delta = 6.0 / 29.0
    xyz = np.where(f_xyz > delta, f_xyz**3, 3 * delta**2 * (f_xyz - 4.0 / 29.0))
    xyz *= (0.95047, 1.0, 1.08883)
    to_linear = np.array(
        [
            [3.2404542, -1.5371385, -0.4985314],
            [-0.9692660, 1.8760108, 0.0415560],
            [0.0556434, -0.2040259, 1.0572252],
        ]
    )
    linear = np.clip(xyz @ to_linear.T, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = np.rint(encoded * 255.0).astype(np.uint8)
    return colours


# Most negative first, zero in the middle, then NaN's grey in the last row.
PALETTE = np.concatenate(
    [_side(*NEGATIVE)[:0:-1], _side(*POSITIVE), np.array([UNCOVERED], np.uint8)]
)


def symmetric_limit(values: ArrayLike, quantile: float = 0.995) -> float:
    """The value at which colours saturate: a quantile of ``|values|``, for both signs alike.

    Args:
        values: numbers of any shape; NaN is left out.
        quantile: share of the values to show without clipping, in (0, 1].

    Returns:
        A positive number; the largest ``|value|`` where the quantile is zero, 1 where all are.

    Raises:
        ValueError: a quantile outside (0, 1].
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile must be in (0, 1], got {quantile}")
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    if not sizes.size or not sizes.any():
        return 1.0
    return float(np.quantile(sizes, quantile)) or float(sizes.max())


def diverging(values: ArrayLike, limit: float) -> NDArray[np.uint8]:
    """Colour signed values: blue below zero, white at zero, orange-brown above.

    Args:
        values: numbers of any shape.
        limit: the ``|value|`` at which colours saturate, see :func:`symmetric_limit`.

    Returns:
        sRGB of shape ``(*values.shape, 3)``; NaN in a light grey that is no colour of the scale.

    Raises:
        ValueError: a limit that is not positive and finite.
    """
    values = np.asarray(values)
    share = _share(values, limit)
    index = np.rint((STEPS - 1) * (1.0 + np.nan_to_num(share))).astype(np.intp)
    index = np.where(np.isnan(share), len(PALETTE) - 1, index)
    colours: NDArray[np.uint8] = PALETTE[index]
    return colours


def heat(values: ArrayLike, limit: float, opacity: float = 0.9) -> NDArray[np.uint8]:
    """The layer that :func:`overlay` puts on an image: colour whose opacity grows with ``|value|``.

    Zero and NaN are fully transparent, the limit and beyond have ``opacity``. Between, the opacity
    follows the square root of ``|value| / limit``: the colour fades towards white by itself, and
    fading both in proportion would lose the weaker half of the scale.

    Args:
        values: numbers of any shape.
        limit: the ``|value|`` at which colour and opacity saturate.
        opacity: the largest opacity, in [0, 1].

    Returns:
        RGBA of shape ``(*values.shape, 4)``, colours not premultiplied.

    Raises:
        ValueError: a limit that is not positive and finite, an opacity outside [0, 1].
    """
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")
    values = np.asarray(values)
    strength = np.sqrt(np.abs(np.nan_to_num(_share(values, limit))))
    alpha = np.rint(255.0 * opacity * strength).astype(np.uint8)
    return np.concatenate([diverging(values, limit), alpha[..., None]], axis=-1)


def overlay(
    values: ArrayLike,
    image: ArrayLike | Image.Image,
    limit: float | None = None,
    opacity: float = 0.9,
) -> Image.Image:
    """Lay a signed map over the image it explains; the tissue stays visible where little is said.

    Args:
        values: ``(height, width)`` contributions.
        image: the same pixels as ``(height, width, 3)`` uint8 or floats in [0, 1], as six channels
            ``(6, height, width)`` in [0, 1], or a Pillow image.
        limit: the ``|value|`` at which colour saturates; :func:`symmetric_limit` when omitted.
            Give one to compare pictures.
        opacity: the largest opacity, in [0, 1].

    Returns:
        An RGB picture of the image's size.

    Raises:
        ValueError: shapes that do not match, a limit or opacity out of range.
    """
    values, rgb = np.asarray(values), _rgb(image)
    if values.shape != rgb.shape[:2]:
        raise ValueError(f"the map is {values.shape}, the image {rgb.shape[:2]}; resize the image")
    layer = heat(values, symmetric_limit(values) if limit is None else limit, opacity)
    alpha = layer[..., 3:] / 255.0
    mixed = layer[..., :3] * alpha + rgb * (1.0 - alpha)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def colour_explanation(
    weights: ArrayLike,
    contributions: ArrayLike,
    *,
    smooth: int = 15,
    quantile: float = 0.995,
    limit: float | None = None,
) -> NDArray[np.uint8]:
    """Show the effective weights W(x) in the colours they look for.

    A pixel's colour is the input that its six weights answer to most: each of the three pairs
    ``(w, w')`` for ``(v, 1 - v)``, negatives cut to zero, gives ``w / (w + w')``. Its opacity is
    the length of the weights, zero where the contribution is negative, averaged over a window and
    divided by ``limit``. So opacity tells how hard the model looks, not how much a pixel gives,
    and negative evidence is not shown: use :func:`overlay` for numbers.

    Args:
        weights: ``(6, height, width)`` or ``(n, 6, height, width)``.
        contributions: ``(height, width)`` or ``(n, height, width)``.
        smooth: side of the averaging window in pixels, odd; beyond the edge counts as zero.
        quantile: of each picture's own opacities, taken as ``limit`` when that is omitted.
        limit: the weight length that becomes opaque; give one to compare pictures.

    Returns:
        RGBA of shape ``(height, width, 4)`` or ``(n, height, width, 4)``.

    Raises:
        ValueError: shapes that do not match, a window that is even, a limit or quantile out of
            range.

    Source:
        Boehle et al., "B-cos Networks: Alignment is All We Need for Interpretability", CVPR 2022
        (arXiv:2205.10268).
    """
    weights = np.asarray(weights, dtype=np.float64)
    contributions = np.asarray(contributions, dtype=np.float64)
    if weights.ndim == 4 and weights.shape[0] == len(contributions):
        pictures = [
            colour_explanation(w, c, smooth=smooth, quantile=quantile, limit=limit)
            for w, c in zip(weights, contributions, strict=True)
        ]
        return np.stack(pictures)
    if weights.ndim != 3 or weights.shape[0] != 6 or weights.shape[1:] != contributions.shape:
        raise ValueError(
            "weights are (6, h, w) and contributions (h, w), both with or without a leading n; "
            f"got {weights.shape} and {contributions.shape}"
        )
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth must be odd and positive, got {smooth}")
    tiny = 1e-12
    scaled = np.maximum(weights / (np.abs(weights).max(axis=0) + tiny), 0.0)
    colour = scaled[:3] / (scaled[:3] + scaled[3:] + tiny)
    length = np.where(contributions < 0.0, tiny, np.linalg.norm(weights, axis=0))
    strength = _box_mean(length, smooth)
    alpha = _share(strength, symmetric_limit(strength, quantile) if limit is None else limit)
    rgba = np.concatenate([colour, alpha[None]]).transpose(1, 2, 0)
    picture: NDArray[np.uint8] = np.rint(rgba * 255.0).astype(np.uint8)
    return picture


def _share(values: NDArray[np.generic], limit: float) -> NDArray[np.float64]:
    """``values / limit`` clipped to [-1, 1]; NaN stays."""
    if not (limit > 0.0 and np.isfinite(limit)):
        raise ValueError(f"limit must be positive and finite, got {limit}")
    share: NDArray[np.float64] = np.clip(np.asarray(values) / limit, -1.0, 1.0)
    return share


def _box_mean(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Mean over a ``side x side`` window around each pixel; zeros beyond the edge are counted."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (side // 2, side // 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, pad), side, axis=axis)
        values = windows.mean(axis=-1)
    return values


def _rgb(image: ArrayLike | Image.Image) -> NDArray[np.uint8]:
    """Any accepted image as ``(height, width, 3)`` uint8."""
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim == 3 and pixels.shape[0] == 6 and pixels.shape[2] not in (3, 4):
        pixels = pixels[:3].transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"an image is (h, w, 3) or (6, h, w), got shape {pixels.shape}")
    if pixels.dtype == np.uint8:
        return pixels
    rgb: NDArray[np.uint8] = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    return rgb
