"""SlideMap: a scalar raster placed on a slide (tissue fraction, probability, contribution)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box, Mpp


@dataclass(frozen=True, slots=True)
class SlideMap:
    """Values on a slide, in whole pixels of a constant size.

    Args:
        values: ``(height, width)`` floats; NaN where nothing was measured. May be memory-mapped.
        box: the level-0 rectangle that all pixels together cover; it may reach over the slide's
            right and bottom edges by less than a pixel, so that every pixel has the same size.
        slide_mpp: the slide's own micrometres per level-0 pixel.
        unit: what a value is, e.g. ``"logit"``, ``"fraction"``.

    Raises:
        ValueError: ``values`` is not two-dimensional or empty.
    """

    values: NDArray[Any]
    box: Box
    slide_mpp: Mpp
    unit: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"a slide map is (height, width), got shape {self.values.shape}")

    @property
    def downsample(self) -> tuple[float, float]:
        """Level-0 pixels per map pixel, along x and y."""
        height, width = self.values.shape
        return self.box.width / width, self.box.height / height

    @property
    def mpp(self) -> Mpp:
        """Micrometres per map pixel."""
        x, y = self.downsample
        return Mpp(self.slide_mpp.x * x, self.slide_mpp.y * y)

    @property
    def pixel_area_mm2(self) -> float:
        """Tissue under one map pixel, in square millimetres."""
        return self.mpp.x * self.mpp.y * 1e-6

    def sum(self) -> float:
        """Sum of all covered pixels, accumulated in float64."""
        return float(np.nansum(self.values, dtype=np.float64))

    def box_means(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean value under each box, exact in area; what lies outside the map counts as zero.

        Args:
            boxes: ``(n, 4)`` rows ``x, y, width, height`` in level-0 pixels.

        Returns:
            ``(n,)`` area-weighted means; NaN pixels count as zero.
        """
        height, width = self.values.shape
        integral = np.zeros((height + 1, width + 1))
        np.cumsum(np.nan_to_num(self.values), axis=0, dtype=np.float64, out=integral[1:, 1:])
        np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
        down_x, down_y = self.downsample
        left, top = (boxes[:, 0] - self.box.x) / down_x, (boxes[:, 1] - self.box.y) / down_y
        right, bottom = left + boxes[:, 2] / down_x, top + boxes[:, 3] / down_y

        def mass(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            """Integral of the map over everything above and left of real-valued (x, y)."""
            x, y = np.clip(x, 0, width), np.clip(y, 0, height)
            i, j = np.minimum(y.astype(int), height - 1), np.minimum(x.astype(int), width - 1)
            fy, fx = y - i, x - j
            upper = integral[i, j] * (1 - fx) + integral[i, j + 1] * fx
            lower = integral[i + 1, j] * (1 - fx) + integral[i + 1, j + 1] * fx
            total: NDArray[np.float64] = upper * (1 - fy) + lower * fy
            return total

        inside = mass(right, bottom) - mass(left, bottom) - mass(right, top) + mass(left, top)
        means: NDArray[np.float64] = inside / ((right - left) * (bottom - top))
        return means
