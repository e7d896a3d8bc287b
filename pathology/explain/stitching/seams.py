"""Seams: how much of a map's power lies on the lattice of its tiles.

What every tile does in the same way, as at a rim that has seen padding, comes back every p pixels,
and its power is at the frequencies ``k / p``. What tissue looks like has no reason to prefer these
to their neighbours. So, along x and y and summed over harmonics k::

    seam energy = sum_k P(k / p) / sum_k B(k / p)

P is the power spectrum, B what the power beside ``k / p`` lets expect there: a power law (a line of
log P over log f) through ``k - 3/8, k - 1/4, k + 1/4, k + 3/8``. 1 means no seams.

There are two kinds of seams. Of the map's *values* the spectrum tells what repeats in each tile.
Tiles that are each higher or lower as a whole do not repeat, and have no power at ``k / p`` at all;
what comes back are the *steps* between them, absolute differences of neighbouring pixels.

The spectrum is Welch's (IEEE Trans. Audio Electroacoustics 15, 1967): stretches of eight periods
that overlap by half, less their mean, under a Hann window, of which a line at ``k / p`` reaches
nothing that is a quarter of ``1 / p`` or more away. Stretches with a gap (NaN) are left out.
Frequencies are worked out one by one, so p need not be a whole number of pixels.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pathology.maps.slide_map import SlideMap

Of = Literal["values", "steps"]
PERIODS = 8
"""Of a stretch: then the Hann window of a line is zero a quarter of ``1 / p`` away."""
BESIDE = (-3 / 8, -1 / 4, 1 / 4, 3 / 8)
_HIGHEST = 0.45  # cycles per pixel; half a cycle is the end
_BAND = 256  # rows or columns held at once


@dataclass(frozen=True)
class SeamEnergy:
    """Power on a lattice, and what is expected there.

    Args:
        harmonics: ``(n,)`` which multiples of ``1 / period`` were looked at.
        power: ``(2, n)`` along x and y.
        expected: ``(2, n)`` by the frequencies beside.
        stretches: how many were averaged along x and y.
    """

    harmonics: NDArray[np.intp]
    power: NDArray[np.float64]
    expected: NDArray[np.float64]
    stretches: tuple[int, int]

    @property
    def ratio(self) -> float:
        """Seam energy: 1 without seams."""
        return float(self.power.sum() / self.expected.sum())

    @property
    def along(self) -> tuple[float, float]:
        """The same along x and y alone."""
        x, y = self.power.sum(1) / self.expected.sum(1)
        return float(x), float(y)


def seam_energy(
    slide_map: SlideMap,
    period: tuple[float, float],
    *,
    of: Of = "values",
    own_lattice: tuple[float, float] | None = None,
) -> SeamEnergy:
    """How much more power a map has on a lattice than beside it.

    Args:
        slide_map: best a density map, whose height does not depend on how many tiles overlap.
        period: from one tile to the next along x and y, in level-0 pixels; with overlap the tiles'
            size, of which their stride is a part.
        of: ``"values"`` for what repeats in each tile, ``"steps"`` for jumps between tiles.
        own_lattice: period of the network's own cells, likewise: harmonics that are multiples of
            theirs are left out, since strided layers leave a pattern of their own, tiles or none.

    Raises:
        ValueError: ``of`` is unknown, the period is under 4 pixels of the map, or no stretch of
            eight periods is without gaps.
    """
    if of not in get_args(Of):
        raise ValueError(f"of must be one of {', '.join(get_args(Of))}; got {of!r}")
    values = slide_map.values
    spectra = []
    for axis, (length, pixel) in enumerate(zip(period, slide_map.downsample, strict=True)):
        pixels = length / pixel
        if not pixels >= 4:
            raise ValueError(
                f"a period must be at least 4 pixels of the map, got {pixels:.3g}: make the map at"
                " a finer out_mpp"
            )
        rows = values if axis == 0 else values.T
        shared = None if own_lattice is None else length / own_lattice[axis]
        spectra.append(_lines(rows, pixels, shared, of))
    count = min(len(harmonics) for harmonics, *_ in spectra)
    return SeamEnergy(
        spectra[0][0][:count],
        np.stack([power[:count] for _, power, _, _ in spectra]),
        np.stack([expected[:count] for _, _, expected, _ in spectra]),
        (spectra[0][3], spectra[1][3]),
    )


def _lines(
    rows: NDArray[np.floating], period: float, shared: float | None, of: Of
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64], int]:
    """Harmonics, power and expected power along the second axis, and stretches."""
    last = max(1, math.floor(_HIGHEST * period))
    harmonics = np.arange(1, last + 1)
    if shared is not None:
        harmonics = harmonics[np.abs(harmonics / shared - np.rint(harmonics / shared)) > 1e-6]
    offsets = np.array((0.0, *BESIDE))
    multiples = harmonics[:, None] + offsets  # (harmonics, 1 + beside)
    power, count = _power(rows, (multiples / period).ravel(), round(PERIODS * period), of)
    power = power.reshape(multiples.shape)
    # A straight line of log power over log frequency, by least squares, at the harmonic.
    x = np.log(multiples[:, 1:] / harmonics[:, None])
    tiny = np.finfo(np.float64).tiny
    y = np.log(np.maximum(power[:, 1:], tiny))
    around = x - x.mean(1, keepdims=True)
    slope = (around * y).sum(1) / (around**2).sum(1)
    return harmonics, power[:, 0], np.exp(y.mean(1) - slope * x.mean(1)), count


def _power(
    rows: NDArray[np.floating], frequencies: NDArray[np.float64], length: int, of: Of
) -> tuple[NDArray[np.float64], int]:
    """Mean power of stretches without gaps at ``frequencies``, in cycles per pixel."""
    window = np.hanning(length + 2)[1:-1]
    waves = np.exp(-2j * np.pi * np.arange(length)[:, None] * frequencies) * window[:, None]
    total, count = np.zeros(len(frequencies)), 0
    for top in range(0, rows.shape[0], _BAND):
        band = np.asarray(rows[top : top + _BAND], np.float64)
        if of == "steps":
            band = np.abs(np.diff(band, axis=1))
        for left in range(0, band.shape[1] - length + 1, max(1, length // 2)):
            stretch = band[:, left : left + length]
            stretch = stretch[np.isfinite(stretch).all(1)]
            if not len(stretch):
                continue
            # Less the mean as the window sees it, which would leak into the first harmonics.
            stretch = stretch - (stretch @ window / window.sum())[:, None]
            total += (np.abs(stretch @ waves) ** 2).sum(0)
            count += len(stretch)
    if not count:
        raise ValueError(
            f"no stretch of {length} pixels ({PERIODS} periods) of the map is without gaps; take a"
            " larger map, or one of all tiles of the slide"
        )
    return total / count, count
