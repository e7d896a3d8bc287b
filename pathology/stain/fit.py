"""Fitting stain profiles: once per slide, from stained pixels of a sample of its tiles."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.errors import NoTissueError
from pathology.slides.slide import Slide
from pathology.stain import vectors
from pathology.stain.density import Vector, density, is_stained
from pathology.stain.profile import FEWEST_PIXELS, StainProfile, StainSettings, StainSource
from pathology.tiling import TileGrid
from pathology.tissue.picture import glass_colour

NEAREST_DEGREES = 7.0
"""Vectors nearer than this are one stain and its noise (up to 6 degrees as made up); two are 9 or
more apart in real tissue, even within single tiles."""

DIGITS = 6
"""Decimal places of fitted numbers. Sums differ in the sixteenth between processors and numbers of
threads; a target fitted again must be the same target."""

FAINTEST = 0.05
"""A stain that 99 % of pixels hold less of than this, in optical density, is as good as absent."""


def fit_profile(
    slide: Slide, grid: TileGrid, settings: StainSettings | None = None
) -> StainProfile:
    """The stain profile of a slide; the same each time.

    Tiles are drawn at random and read at their own mpp. Each gives as many of its stained pixels,
    so that blank tiles and glass have no say; see :func:`pathology.stain.density.is_stained`.
    Numbers are rounded to :data:`DIGITS` places.

    Args:
        slide: the slide, in the colour that ``grid.spec`` asks for.
        grid: its tiles.
        settings: how; the defaults of :class:`StainSettings` when omitted.

    Raises:
        NoTissueError: too little stain, or only one; names the slide.
        SlideOpenError: the file is damaged, or gone.
        ValueError: the slide is opened in another colour.
    """
    if slide.colour != grid.spec.colour:
        raise ValueError(
            f"slide {slide.slide_id!r} is opened with colour={slide.colour!r}, its tiles are of"
            f" {grid.spec.colour!r}"
        )
    settings = settings or StainSettings()
    rng = np.random.default_rng(settings.seed)
    count = min(settings.tiles, len(grid))
    chosen = np.sort(rng.choice(len(grid), count, replace=False))
    white = _white(settings, lambda: slide.thumbnail(1024))
    # A single tile of tissue may have to do.
    quota = max(FEWEST_PIXELS, -(-settings.pixels // max(1, count)))
    pooled, looked_at = [np.empty((0, 3), np.uint8)], 0
    for index in chosen:
        pixels = slide.read(grid[int(index)].box, grid.spec.mpp).reshape(-1, 3)
        looked_at += len(pixels)
        pooled.append(_stained(pixels, white, settings, quota, rng))
    stained = _some(np.concatenate(pooled), settings.pixels, rng)
    try:
        return _fit(
            stained, looked_at, white, settings, rng,
            StainSource(slide.slide_id, slide.stamp(), tiles_digest(grid), colour=slide.colour),
        )  # fmt: skip
    except _TooLittle as error:
        raise NoTissueError(
            f"slide {slide.slide_id!r}: {error} (in {count} of {len(grid)} tiles); leave the slide"
            " out, or look at what the tissue finder found",
            slide.path,
        ) from error


def fit_image(
    pixels: NDArray[np.uint8], settings: StainSettings | None = None, name: str = "image"
) -> StainProfile:
    """The stain profile of an image, such as a published target.

    Args:
        pixels: ``(height, width, 3)`` RGB.
        settings: how; the defaults of :class:`StainSettings` when omitted.
        name: the image's, for messages and provenance.

    Raises:
        NoTissueError: too little stain, or only one.
        TypeError: ``pixels`` is not uint8.
        ValueError: ``pixels`` is not RGB.
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be (height, width, 3), got {pixels.shape}")
    settings = settings or StainSettings()
    rng = np.random.default_rng(settings.seed)
    white = _white(settings, lambda: pixels)
    stained = _stained(pixels.reshape(-1, 3), white, settings, settings.pixels, rng)
    stamp = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    try:
        return _fit(stained, pixels.size // 3, white, settings, rng, StainSource(name, stamp))
    except _TooLittle as error:
        raise NoTissueError(f"{name}: {error}; choose another image") from error


def tiles_digest(grid: TileGrid) -> str:
    """Fingerprint of where tiles lie and how they were asked for, 16 hex digits."""
    content = grid.spec.digest().encode() + grid.boxes().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


class _TooLittle(Exception):
    """Pixels that do not show two stains; the message says why."""


def _fit(
    stained: NDArray[np.uint8],
    looked_at: int,
    white: Vector,
    settings: StainSettings,
    rng: np.random.Generator,
    source: StainSource,
) -> StainProfile:
    """The profile of stained pixels.

    Raises:
        _TooLittle: they are too few, or of one stain.
    """
    if len(stained) < FEWEST_PIXELS:
        raise _TooLittle(
            f"too little stain to fit a profile: {len(stained)} of {looked_at} pixels are stained,"
            f" at least {FEWEST_PIXELS} are needed"
        )
    source = replace(source, pixels=len(stained))
    if settings.method == "reinhard":
        from skimage.color import rgb2lab  # slow to import

        lab = rgb2lab(stained.astype(np.float64) / 255)
        means, deviations = lab.mean(0), lab.std(0)
        if not (deviations > 1e-3).all():
            raise _TooLittle("all stained pixels have one colour")
        return StainProfile(
            "reinhard", white, means=_rounded(means), deviations=_rounded(deviations),
            source=source, settings=settings,
        )  # fmt: skip
    densities = density(stained, white)
    if settings.method == "vahadane":
        found = vectors.vahadane(densities, settings.sparsity, rng)
        held = vectors.positive_amounts(densities, found)
    else:
        found = vectors.macenko(densities, settings.percentile)
        held = vectors.amounts(densities, found)
    apart = vectors.angle(found)
    largest = np.percentile(held, 99, axis=0)
    if apart < NEAREST_DEGREES or not (largest > FAINTEST).all():
        raise _TooLittle(
            f"only one stain: the two vectors are {apart:.1f} degrees apart and hold optical"
            f" densities of {largest[0]:.2f} and {largest[1]:.2f}; H&E lies 9 or more apart"
        )
    haematoxylin, eosin = (_rounded(row) for row in found)
    return StainProfile(
        settings.method, white, (haematoxylin, eosin), _rounded(largest),
        source=source, settings=settings,
    )  # fmt: skip


def _rounded(numbers: NDArray[np.float64]) -> Any:
    """To :data:`DIGITS`; zero without a sign."""
    return tuple((numbers.round(DIGITS) + 0.0).tolist())


def _white(settings: StainSettings, look: Callable[[], NDArray[np.uint8]]) -> Vector:
    """The glass's colour, as said or as seen."""
    if settings.white != "glass":
        return (float(settings.white),) * 3
    red, green, blue = glass_colour(look()).tolist()
    return red, green, blue


def _stained(
    pixels: NDArray[np.uint8],
    white: Vector,
    settings: StainSettings,
    most: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Up to ``most`` stained ones of ``(n, 3)`` pixels, drawn at random."""
    assert settings.palest is not None  # StainSettings fills it in
    return _some(pixels[is_stained(density(pixels, white), settings.palest)], most, rng)


def _some(pixels: NDArray[np.uint8], most: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """All pixels, or as many as there may be, drawn at random."""
    if len(pixels) <= most:
        return pixels
    chosen: NDArray[np.uint8] = pixels[rng.choice(len(pixels), most, replace=False)]
    return chosen
