"""Where the tissue of a slide lies and which part of it is tumour."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pathology.synthetic.lattice import Floats, SmoothNoise
from pathology.synthetic.spec import SyntheticSlideSpec

NORMAL = 1
TUMOUR = 2

_KIND_LAYOUT, _KIND_OUTLINE, _KIND_FRAY, _KIND_TEAR, _KIND_CLASS = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Layout:
    """The coarse plan of one slide: blobs of tissue, and a field that splits them into classes.

    Args:
        blobs: one row per piece of tissue: centre x, centre y, half width, half height in
            micrometres, and turn in radians; shape (n, 5).
        outline: noise that bends the outline.
        fray: noise that roughens it.
        tear: noise that frays it at the scale of fibres.
        split: noise whose high values are tumour.
        threshold: value of ``split`` above which tissue is tumour.
    """

    blobs: Floats
    outline: SmoothNoise
    fray: SmoothNoise
    tear: SmoothNoise
    split: SmoothNoise
    threshold: float

    def depth(self, x: Floats, y: Floats) -> NDArray[np.float32]:
        """Depth below the tissue's surface on a grid, in micrometres; negative on glass.

        Args:
            x: columns in micrometres, rising, shape (w,).
            y: rows, shape (h,).

        Returns:
            Approximate depth, exact in sign, shape (h, w).
        """
        best = np.full((len(y), len(x)), -np.inf, np.float32)
        for centre_x, centre_y, half_width, half_height, turn in self.blobs:
            dx = (x - centre_x).astype(np.float32)[None, :]
            dy = (y - centre_y).astype(np.float32)[:, None]
            c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            u = (c * dx + s * dy) / np.float32(half_width)
            v = (c * dy - s * dx) / np.float32(half_height)
            # A superellipse of power 3 fills its box better than an ellipse.
            radius = np.cbrt(np.abs(u) ** 3 + np.abs(v) ** 3)
            np.maximum(best, (1 - radius) * np.float32(min(half_width, half_height)), out=best)
        size = float(min(self.blobs[:, 2:4].min(), 1500.0))
        best += self.outline.grid(x, y) * np.float32(0.07 * size)
        best += self.fray.grid(x, y) * np.float32(7.0)
        best += self.tear.grid(x, y) * np.float32(1.8)
        return best

    def classes(self, x: Floats, y: Floats) -> NDArray[np.uint8]:
        """Class at scattered points in micrometres: 1 normal, 2 tumour; shape (n,)."""
        high = self.split.at(x, y) > self.threshold
        return np.where(high, TUMOUR, NORMAL).astype(np.uint8)


@lru_cache(maxsize=32)
def plan(spec: SyntheticSlideSpec) -> Layout:
    """The layout of a slide; a pure function of its specification."""
    rng = np.random.default_rng([spec.seed, _KIND_LAYOUT])
    width, height = spec.size_um
    # A long slide gets several pieces of tissue in a row along its longer side.
    pieces = int(np.clip(round(max(width, height) / min(width, height)), 1, 4))
    blobs = np.empty((pieces, 5))
    for i in range(pieces):
        share = (i + 0.5) / pieces
        across, down = (share, 0.5) if width >= height else (0.5, share)
        step_x, step_y = (width / pieces, height) if width >= height else (width, height / pieces)
        blobs[i] = (
            width * across + rng.uniform(-0.02, 0.02) * step_x,
            height * down + rng.uniform(-0.02, 0.02) * step_y,
            step_x * rng.uniform(0.41, 0.46),
            step_y * rng.uniform(0.41, 0.46),
            rng.uniform(-0.12, 0.12),
        )
    side = min(width, height)
    layout = Layout(
        blobs,
        SmoothNoise(spec.seed, _KIND_OUTLINE, float(np.clip(side / 6, 60, 800))),
        SmoothNoise(spec.seed, _KIND_FRAY, 30.0),
        SmoothNoise(spec.seed, _KIND_TEAR, 5.0),
        SmoothNoise(spec.seed, _KIND_CLASS, float(np.clip(side / 4, 150, 1500))),
        0.0,
    )
    return Layout(
        blobs, layout.outline, layout.fray, layout.tear, layout.split, _threshold(spec, layout)
    )


def _threshold(spec: SyntheticSlideSpec, layout: Layout) -> float:
    """Value of the class field that leaves the wanted share of the tissue above it."""
    if spec.tumour_fraction == 0.0:
        return np.inf
    if spec.tumour_fraction == 1.0:
        return -np.inf
    # A fixed number of samples, so that planning costs the same for a slide of any size.
    width, height = spec.size_um
    x: Floats = (np.arange(96, dtype=np.float64) + 0.5) * (width / 96)
    y: Floats = (np.arange(96, dtype=np.float64) + 0.5) * (height / 96)
    inside = layout.depth(x, y) > 0
    field = layout.split.grid(x, y)
    values = field[inside] if inside.any() else field.ravel()
    return float(np.quantile(values, 1.0 - spec.tumour_fraction))
