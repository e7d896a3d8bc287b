"""TileSpec: what was asked for when a slide was cut into tiles."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class TileSpec:
    """Size, scale and choice of tiles.

    Args:
        size_px: side of a tile, in pixels at ``mpp``.
        mpp: micrometres per pixel of the tiles.
        overlap_px: how much neighbours share, in pixels at ``mpp``.
        min_tissue: least fraction of a tile's area that is tissue, 0 to 1.
        keep_edges: keep tiles that reach over the slide's right and bottom edges.

    Raises:
        TypeError: ``size_px`` or ``overlap_px`` is not a whole number.
        ValueError: a number outside of its range.
    """

    size_px: int = 224
    mpp: float = 0.5
    overlap_px: int = 0
    min_tissue: float = 0.5
    keep_edges: bool = False

    def __post_init__(self) -> None:
        for name in ("size_px", "overlap_px"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a whole number of pixels, got {value!r}")
        if self.size_px < 1:
            raise ValueError(f"size_px must be at least 1, got {self.size_px}")
        if not math.isfinite(self.mpp) or self.mpp <= 0:
            raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {self.mpp}")
        if not 0 <= self.overlap_px < self.size_px:
            raise ValueError(
                f"overlap_px must be in [0, size_px) = [0, {self.size_px}), got {self.overlap_px}"
            )
        if not 0 <= self.min_tissue <= 1:
            raise ValueError(f"min_tissue must be in [0, 1], got {self.min_tissue}")

    @property
    def stride_px(self) -> int:
        """From one tile to the next, in pixels at ``mpp``."""
        return self.size_px - self.overlap_px

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec of :meth:`to_dict`.

        Raises:
            TypeError: a name that is no argument.
            ValueError: a number outside of its range.
        """
        return cls(**values)

    def digest(self) -> str:
        """SHA-256 of all values; equal for specs that are equal, ``mpp=1`` and ``mpp=1.0`` too."""
        values = self.to_dict()
        values |= {"mpp": float(self.mpp), "min_tissue": float(self.min_tissue)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
