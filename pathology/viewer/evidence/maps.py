"""Maps of an explanation, or the difference of two, in the unit that a screen shows.

Additive maps are stored in logits per pixel; shown they are logits per mm2, the sum in a pixel over
its area at that level. Layers say a number of each full pixel; those in logits are shown per mm2 of
such a pixel on every level.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box, Mpp
from pathology.maps.pyramid import Levels
from pathology.maps.shown_unit import is_per_pixel, shown_unit
from pathology.maps.stored_map import StoredMap

Floats = NDArray[np.float64]

LABELS = {
    "heatmap": "evidence",
    "density": "evidence of the tiles themselves",
    "layers/spread": "spread of the members",
    "layers/agreement": "share of the members that agree in sign",
    "layers/members": "members that cover a pixel",
    "layers/null_mean": "mean of the nulls",
    "layers/null_spread": "spread of the nulls",
    "layers/null_z": "evidence against the nulls, as a normal score",
    "layers/null_p": "share of the nulls as strong (p)",
}
UNSIGNED = {
    "layers/spread",
    "layers/agreement",
    "layers/members",
    "layers/null_spread",
    "layers/null_p",
}
MAP = ".ome.tif"
STAIN = "heatmap_"
LAYER = "layers/"


class Range(NamedTuple):
    """How far a map's values reach from zero, in the unit shown.

    Args:
        limit: where colours should saturate; leaves out the strongest half percent. 0 where there
            is no value but zero.
        largest: no ``|value|`` of any level is above it.
    """

    limit: float
    largest: float


class EvidenceMap(ABC):
    """A map with a pyramid, read at any place.

    Args:
        name: as :attr:`StoredExplanation.maps` has it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def label(self) -> str:
        """What it is, for a person."""
        if self.name.startswith(STAIN):
            return f"evidence of {self.name.removeprefix(STAIN)}"
        return LABELS.get(self.name, self.name.removeprefix(LAYER).replace("_", " "))

    @property
    def is_signed(self) -> bool:
        """Whether values may be below zero."""
        return self.name not in UNSIGNED

    @property
    @abstractmethod
    def stored(self) -> StoredMap:
        """One that lies on the same grid, and holds the same kind of numbers."""

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """``(height, width)`` of each level, the finest first."""
        return self.stored.shapes

    @property
    def box(self) -> Box:
        """The level-0 rectangle of all pixels of the finest level."""
        return self.stored.box

    @property
    def slide_mpp(self) -> Mpp:
        """Micrometres per level-0 pixel of the slide."""
        return self.stored.slide_mpp

    @property
    def kind(self) -> Levels:
        """``"sum"`` where every level has the same total, else ``"mean"``."""
        return self.stored.kind

    @property
    def unit(self) -> str:
        """Of what is shown."""
        return shown_unit(self.stored.unit)

    def pixel_mpp(self, level: int = 0) -> Mpp:
        """Micrometres per pixel of a level."""
        return self.stored.pixel_mpp(level)

    def divisor(self, level: int) -> float:
        """What stored numbers of a level are divided by to be shown: mm2, or 1."""
        if not is_per_pixel(self.stored.unit):
            return 1.0
        mpp = self.pixel_mpp(level if self.kind == "sum" else 0)
        return mpp.x * mpp.y * 1e-6

    @property
    @abstractmethod
    def range(self) -> Range:
        """How far values reach."""

    @property
    @abstractmethod
    def stamp(self) -> str:
        """Another one when another file is behind it."""

    @abstractmethod
    def read(self, level: int, top: int, left: int, height: int, width: int) -> Floats:
        """Pixels of a level as they are stored: of an additive map, in logits.

        Args:
            level: 0 the finest.
            top: first row; may lie outside.
            left: first column; likewise.
            height: rows.
            width: columns.

        Returns:
            ``(height, width)``, NaN where nothing was placed and outside.

        Raises:
            PathologyError: the file is damaged or gone.
            ValueError: no such level, or no rows or columns.
        """

    def shown(self, level: int, top: int, left: int, height: int, width: int) -> Floats:
        """The same in the unit shown, see :meth:`read`."""
        return self.read(level, top, left, height, width) / self.divisor(level)

    def value(self, x: float, y: float) -> float:
        """What the finest level says of a level-0 location, NaN outside."""
        height, width = self.shapes[0]
        column = math.floor((x - self.box.x) / self.box.width * width)
        row = math.floor((y - self.box.y) / self.box.height * height)
        if not (0 <= row < height and 0 <= column < width):
            return math.nan
        return float(self.shown(0, row, column, 1, 1)[0, 0])


class OneMap(EvidenceMap):
    """A map of one explanation.

    Args:
        name: of the map.
        stored: it, open.
        record: of the explanation, which may know the map's range.
    """

    def __init__(self, name: str, stored: StoredMap, record: Mapping[str, Any]) -> None:
        super().__init__(name)
        self._stored = stored
        self._recorded = recorded_range(record, name)

    @property
    def stored(self) -> StoredMap:
        return self._stored

    @cached_property
    def range(self) -> Range:
        """As recorded; looked for in the whole map, once, where it is not."""
        if self._recorded is not None:
            return self._recorded
        area = self.divisor(0)
        return Range(*(number / area for number in self._stored.value_range()))

    @property
    def stamp(self) -> str:
        return self._stored.stamp

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Floats:
        return self._stored.read(level, top, left, height, width).astype(np.float64)


class DifferenceMap(EvidenceMap):
    """A map minus the same map of another explanation.

    Where only one of two additive maps has placed anything, the other adds 0 there. A density is
    what tiles say of a place, and differs only where both have looked; its reduced levels are
    differences of what each says at that level.

    Args:
        first: the map.
        second: what is subtracted.

    Raises:
        ValueError: they do not lie on the same grid, or hold different things.
    """

    def __init__(self, first: EvidenceMap, second: EvidenceMap) -> None:
        super().__init__(first.name)
        self.first, self.second = first, second
        if (first.kind, first.unit) != (second.kind, second.unit):
            raise ValueError(
                f"{first.name}: {first.unit} ({first.kind}) and {second.unit} ({second.kind})"
                " cannot be subtracted"
            )
        if not _same_grid(first, second):
            raise ValueError(
                f"the two maps differ in their pixels: {_grid(first)} and {_grid(second)};"
                " explain both with the same --out-mpp to subtract them"
            )

    @property
    def stored(self) -> StoredMap:
        return self.first.stored

    @property
    def range(self) -> Range:
        """Colours as of the stronger one; no value is above what the two are together."""
        one, other = self.first.range, self.second.range
        return Range(max(one.limit, other.limit), one.largest + other.largest)

    @property
    def stamp(self) -> str:
        return f"{self.first.stamp}~{self.second.stamp}"

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Floats:
        one = self.first.read(level, top, left, height, width)
        other = self.second.read(level, top, left, height, width)
        neither = np.isnan(one) & np.isnan(other)
        if self.kind == "sum":
            one[np.isnan(one)] = 0.0
            other[np.isnan(other)] = 0.0
        with np.errstate(invalid="ignore"):  # infinities
            difference: Floats = one - other
        difference[neither] = np.nan
        return difference


def recorded_range(record: Mapping[str, Any], name: str) -> Range | None:
    """What a record says of a map's range; None where it says nothing that could be one."""
    try:
        told = record["ranges"][name]
        found = Range(float(told["limit"]), float(told["largest"]))
    except (LookupError, TypeError, ValueError):
        return None
    return found if 0 < found.limit <= found.largest < math.inf else None


def _same_grid(first: EvidenceMap, second: EvidenceMap) -> bool:
    def numbers(each: EvidenceMap) -> tuple[float, ...]:
        box = each.box
        return box.x, box.y, box.width, box.height, *each.slide_mpp

    return first.shapes == second.shapes and all(
        math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
        for one, other in zip(numbers(first), numbers(second), strict=True)
    )


def _grid(each: EvidenceMap) -> str:
    height, width = each.shapes[0]
    mpp = each.pixel_mpp()
    return f"{width} x {height} of {mpp.x:.6g} x {mpp.y:.6g} µm"
