"""Where the planes of a pyramid lie on level 0, and which of them serves a request."""

from collections.abc import Sequence
from typing import NamedTuple

from pathology.geometry import Size

# A plane that is coarser than asked for by less than this counts as equal: sides of planes are
# whole pixels, so downsamples read 4.0003, and one level finer costs sixteen times the pixels.
EQUAL = 1.01
# Sides of planes are rounded up or down; by more than this they do not show the same.
ROUNDED_PX = 2


class Level(NamedTuple):
    """One stored plane.

    Args:
        width: in its own pixels.
        height: in its own pixels.
        downsample: level-0 pixels per pixel along a side.
        tile: width and height of the file's own tiles in pixels of the plane, ``None`` where it
            has none or does not say.
    """

    width: int
    height: int
    downsample: float
    tile: tuple[int, int] | None = None


class Scale(NamedTuple):
    """Level-0 pixels per level pixel along x and y."""

    x: float
    y: float


def level_scale(size: Size, width: int, height: int, whole_factors: bool) -> Scale:
    """The scale of a ``width x height`` plane of a slide of ``size`` level-0 pixels.

    A plane is seldom exactly level 0 divided by a whole number. Scanners shrink by a whole factor
    and cut the last, incomplete pixel: their factor is that number, and the plain ratio of the
    sides would drift by up to a pixel towards the bottom right corner. Image software scales the
    sides to fit: there the ratio is the truth. The file does not say (some tell resolutions of
    whole factors and have fitted planes); its maker does. Where the maker is not known, a plane may
    be off by up to one of its own pixels at the bottom right corner.

    Args:
        size: level-0 size in pixels.
        width: width of the plane in pixels.
        height: height of the plane in pixels.
        whole_factors: the maker shrinks by whole factors.
    """
    factor = round(size.width / width)
    if whole_factors and all(
        abs(full - factor * part) < factor
        for full, part in ((size.width, width), (size.height, height))
    ):
        return Scale(factor, factor)
    return Scale(size.width / width, size.height / height)


def shows_the_slide(size: Size, width: int, height: int) -> bool:
    """Whether a ``width x height`` plane can be a slide of ``size`` shrunk, by one factor for both.

    Some files fill up their planes to whole tiles, and some count a label or a macro picture among
    them. What such a plane shows lies elsewhere than the ratio of the sides says.
    """
    sides = ((size.width, width), (size.height, height))
    smallest = max(full / (part + ROUNDED_PX) for full, part in sides)
    largest = min(full / max(part - ROUNDED_PX, 1e-9) for full, part in sides)
    return smallest <= largest


def finest_needed(scales: Sequence[Scale], x: float, y: float) -> int:
    """Index of the coarsest plane that still is as fine as ``x`` and ``y`` level-0 pixels.

    Level 0 where none is, that is for a request finer than the slide.
    """
    fit = [i for i, scale in enumerate(scales) if scale.x <= x * EQUAL and scale.y <= y * EQUAL]
    return max(fit, key=lambda i: scales[i].x * scales[i].y, default=0)
