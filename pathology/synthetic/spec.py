"""What a synthetic slide is made from: its seed, its size, and how much of it is tumour."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyntheticSlideSpec:
    """Everything that decides the pixels of one synthetic slide.

    Args:
        seed: any whole number from 0; slides of different seeds share nothing.
        size_px: (width, height) in level-0 pixels.
        mpp: micrometres per pixel, 0.1 to 2.
        tumour_fraction: share of the tissue that is tumour, 0 (none) to 1 (all); met to within
            the size of a gland, 80 micrometres.
        lymphocytes: scattered lymphocytes per 1000 square micrometres of stroma, in both classes.

    Raises:
        ValueError: a value outside its range.
    """

    seed: int
    size_px: tuple[int, int] = (4096, 4096)
    mpp: float = 0.5
    tumour_fraction: float = 0.4
    lymphocytes: float = 0.5

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if min(self.size_px) < 1:
            raise ValueError(f"size_px must be positive, got {self.size_px}")
        if not 0.1 <= self.mpp <= 2.0:
            raise ValueError(f"mpp must be 0.1 to 2, got {self.mpp}")
        if not 0.0 <= self.tumour_fraction <= 1.0:
            raise ValueError(f"tumour_fraction must be 0 to 1, got {self.tumour_fraction}")
        if not 0.0 <= self.lymphocytes <= 5.0 or not math.isfinite(self.lymphocytes):
            raise ValueError(f"lymphocytes must be 0 to 5, got {self.lymphocytes}")

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in micrometres."""
        return self.size_px[0] * self.mpp, self.size_px[1] * self.mpp
