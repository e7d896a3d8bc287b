"""Regions: which part of a slide belongs to which class."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Mpp, Size


class Source(Protocol):
    """What must be known of a slide to place regions on it; a ``Slide`` and a ``GridSource`` do."""

    @property
    def slide_id(self) -> str: ...

    @property
    def size(self) -> Size: ...

    @property
    def mpp(self) -> Mpp: ...


class Regions(Protocol):
    """The classes of one slide's area.

    Each class counts by itself: where regions of one class overlap, the area counts once; where two
    classes overlap, it counts for both. Nothing lies outside of the slide.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of the mapping: of two that are equal the first wins."""

    @property
    def notes(self) -> Mapping[str, int]:
        """What happened while the regions were read that is worth knowing, and how often."""

    def covered(
        self, boxes: NDArray[np.float64], names: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Fraction of every box that each class covers.

        Args:
            boxes: ``(n, 4)`` rows ``x, y, width, height`` in level-0 pixels.
            names: the classes asked for; all when omitted.

        Returns:
            ``(len(names), n)``, 0 to 1, exact up to rounding.

        Raises:
            ValueError: a name that is no class.
        """

    def annotated(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(n,)`` fraction of every box that was annotated as anything, class or not."""

    def points(self, name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """``(count, 2)`` level-0 locations in a class, independent and uniform over its area.

        Raises:
            ValueError: ``name`` is no class, or the class has no area on this slide.
        """


def check_names(known: Sequence[str], names: Sequence[str] | None) -> Sequence[str]:
    """``names``, or all when omitted.

    Raises:
        ValueError: one is no class.
    """
    for name in names or ():
        if name not in known:
            raise ValueError(f"no class is called {name!r}; one of {', '.join(known)}")
    return known if names is None else names
