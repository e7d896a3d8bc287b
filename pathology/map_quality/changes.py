"""Changes of an image that change nothing a pathologist sees: stain, scanner, a shift of the field.

Each is a small thing with a name that is called with an image ``(h, w, 3)`` in [0, 1].
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pathology.map_quality.replacement import optical_density
from pathology.map_quality.scoring import Image
from pathology.synthetic.stains import EOSIN, HAEMATOXYLIN


class Change(Protocol):
    """An image to the same image as another laboratory would have it."""

    @property
    def name(self) -> str:
        """As tables have it."""

    def __call__(self, image: Image) -> Image: ...


@dataclass(frozen=True, slots=True)
class StainChange:
    """Tissue that lay longer, or less long, in the stains; glass stays as it is.

    Optical density is taken apart into haematoxylin, eosin and what neither explains; the first two
    are scaled.

    Args:
        haematoxylin: factor of its amount.
        eosin: likewise.
    """

    haematoxylin: float = 1.0
    eosin: float = 1.0

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"stain H x {self.haematoxylin:g}, E x {self.eosin:g}"

    def __call__(self, image: Image) -> Image:
        vectors = np.array([HAEMATOXYLIN, EOSIN, np.cross(HAEMATOXYLIN, EOSIN)])
        amounts = optical_density(image) @ np.linalg.inv(vectors)
        more = amounts * (self.haematoxylin - 1, self.eosin - 1, 0)
        return np.clip(image * 10 ** -(more @ vectors), 0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ScannerChange:
    """Another lamp and another sensor: ``gain * light ** gamma``.

    Args:
        gain: of red, green and blue.
        gamma: of the response.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"scanner gain {' '.join(f'{one:g}' for one in self.gain)}, gamma {self.gamma:g}"

    def __call__(self, image: Image) -> Image:
        return np.clip(image**self.gamma * np.array(self.gain), 0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Shift:
    """The field moved by whole pixels; what comes in at the border is what is there, mirrored.

    Args:
        down, right: pixels, negative for up and left; less than the image's sides.
    """

    down: int
    right: int

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"shift {self.down} px down, {self.right} px right"

    def __call__(self, image: Image) -> Image:
        rows = (max(self.down, 0), max(-self.down, 0))
        columns = (max(self.right, 0), max(-self.right, 0))
        height, width = image.shape[:2]
        if abs(self.down) >= height or abs(self.right) >= width:
            raise ValueError(f"{self.name} leaves nothing of an image of {height} x {width} px")
        wide = np.pad(image, (rows, columns, (0, 0)), mode="symmetric")
        return wide[rows[1] : rows[1] + height, columns[1] : columns[1] + width]

    def windows(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of a map that stays in view: where it was, and where it is after the shift."""
        (top, to), (left, across) = (
            (slice(max(-by, 0), size - max(by, 0)), slice(max(by, 0), size - max(-by, 0)))
            for by, size in zip((self.down, self.right), shape, strict=True)
        )
        return (top, left), (to, across)


CHANGES: tuple[Change, ...] = (
    StainChange(haematoxylin=1.2),
    StainChange(haematoxylin=0.8),
    StainChange(eosin=1.2),
    StainChange(eosin=0.8),
    ScannerChange(gain=(0.95, 0.95, 0.95)),
    ScannerChange(gain=(1.0, 0.97, 0.94)),
    ScannerChange(gamma=0.9),
    ScannerChange(gamma=1.1),
    Shift(1, 0),
    Shift(3, 5),
    Shift(-8, 8),
)
"""What slides of one laboratory differ by among themselves, about."""
