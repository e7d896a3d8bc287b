"""Sizes and boxes on a slide, in level-0 pixels, and the conversions between frames.

Every location is ``(x, y)`` in level-0 pixels, real numbers, origin at the slide's top left corner,
pixel ``i`` covering ``[i, i + 1)``. Rounding to whole pixels happens in :func:`pixel_count` and
nowhere else.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple


class Size(NamedTuple):
    """Width and height, in the unit the name beside it says."""

    width: float
    height: float


class Mpp(NamedTuple):
    """Micrometres per pixel along x and y."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a slide in level-0 pixels: ``[x, x + width) x [y, y + height)``.

    Raises:
        ValueError: a side that is not positive, or a number that is not finite.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x, self.y, self.width, self.height))):
            raise ValueError(f"a box needs finite numbers, got {self}")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"a box needs positive sides, got {self.width} x {self.height}")

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def area(self) -> float:
        """Area in level-0 pixels."""
        return self.width * self.height

    def intersection(self, other: "Box") -> "Box | None":
        """The part that both boxes cover, ``None`` where they do not meet."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(x, y, right - x, bottom - y) if right > x and bottom > y else None


def pixel_count(level0_length: float, mpp0: float, mpp: float) -> int:
    """Whole pixels that a length of level-0 pixels of ``mpp0`` makes at ``mpp``; at least 1."""
    return max(1, round(level0_length * mpp0 / mpp))


def level0_length(pixels: float, mpp: float, mpp0: float) -> float:
    """How many level-0 pixels of ``mpp0`` a length of ``pixels`` at ``mpp`` covers; not rounded."""
    return pixels * mpp / mpp0
