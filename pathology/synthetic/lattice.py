"""Random numbers and smooth noise that depend on a place only, never on the order of asking."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a bijection of 64-bit integers without visible pattern."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(seed: int, kind: int, ix: ArrayLike, iy: ArrayLike, count: int) -> Floats:
    """Draws ``count`` uniform numbers for each cell of an integer lattice.

    Args:
        seed: seed of the slide, at least 0.
        kind: which quantity is drawn; two kinds share no numbers.
        ix: cell columns, integers of any sign, shape (n,).
        iy: cell rows, shape (n,).
        count: numbers per cell.

    Returns:
        Numbers in [0, 1), shape (n, count).
    """
    # Conversion through int64 lets negative cells wrap round instead of raising.
    column = np.atleast_1d(np.asarray(ix, np.int64)).astype(np.uint64)
    row = np.atleast_1d(np.asarray(iy, np.int64)).astype(np.uint64)
    start = np.array([(seed * _GOLDEN + kind * 0xD1342543DE82EF95) & _MASK], np.uint64)
    key = _mix(_mix(_mix(start) + column) + row * np.uint64(_GOLDEN))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (_mix(key[:, None] + steps) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, slots=True)
class SmoothNoise:
    """Smooth noise over the plane: a cubic B-spline through random values on a square lattice.

    Values have mean 0 and a standard deviation of about 1.

    Args:
        seed: seed of the slide.
        kind: which quantity this is; two kinds are independent.
        period: lattice step in micrometres, about the size of one bump.
    """

    seed: int
    kind: int
    period: float

    # Uniform numbers have a variance of 1/12; a cubic B-spline's squared weights average 0.2297.
    _SCALE = float(np.sqrt(12.0) / 0.479)

    def at(self, x: Floats, y: Floats) -> Floats:
        """Values at scattered points in micrometres; ``x`` and ``y`` of shape (n,)."""
        column, across = _taps(x / self.period)
        row, down = _taps(y / self.period)
        shape = (x.size, 4, 4)
        columns = np.broadcast_to((column[:, None] + np.arange(4))[:, None, :], shape)
        rows = np.broadcast_to((row[:, None] + np.arange(4))[:, :, None], shape)
        values = uniforms(self.seed, self.kind, columns.ravel(), rows.ravel(), 1).reshape(shape)
        weights = across[:, None, :] * down[:, :, None]
        return np.asarray(((values - 0.5) * weights).sum((1, 2)) * self._SCALE)

    def grid(self, x: Floats, y: Floats) -> NDArray[np.float32]:
        """Values on the grid of rising columns ``x`` (w,) and rows ``y`` (h,), shape (h, w)."""
        column, across = _taps(x / self.period)
        row, down = _taps(y / self.period)
        columns = np.arange(column[0], column[-1] + 4)
        rows = np.arange(row[0], row[-1] + 4)
        every = np.meshgrid(columns, rows)
        values = uniforms(self.seed, self.kind, every[0].ravel(), every[1].ravel(), 1)
        lattice = ((values - 0.5) * self._SCALE).reshape(len(rows), len(columns))
        lattice = lattice.astype(np.float32)
        across, down = across.astype(np.float32), down.astype(np.float32)
        left, top = column - column[0], row - row[0]
        wide = sum(
            (lattice[:, left + k] * across[:, k] for k in range(1, 4)),
            lattice[:, left] * across[:, 0],
        )
        full: NDArray[np.float32] = sum(
            (wide[top + k] * down[:, k, None] for k in range(1, 4)), wide[top] * down[:, 0, None]
        )
        return full


def _taps(t: Floats) -> tuple[NDArray[np.int64], Floats]:
    """First lattice index (n,) and the four cubic B-spline weights (n, 4) at positions ``t``."""
    base = np.floor(t)
    f = t - base
    weights = np.stack(
        [
            (1 - f) ** 3,
            3 * f**3 - 6 * f**2 + 4,
            -3 * f**3 + 3 * f**2 + 3 * f + 1,
            f**3,
        ],
        axis=-1,
    )
    return base.astype(np.int64) - 1, weights / 6.0
