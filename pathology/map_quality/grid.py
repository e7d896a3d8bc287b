"""The grid pointing game: of a mosaic of several images, how much of a map lies in the right one.

The mosaic is the caller's; here are only its cells. With many classes each cell is explained for
its own class, and a map's cell is that cell; with two, one cell of the class stands among ``n^2 -
1`` of the other, and a mosaic of the other only should have next to no positive mass
(:func:`pathology.map_quality.energy.positive_mass`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from pathology.map_quality.compared import Maps, checked, share


def cell_shares(maps: ArrayLike, cells: int, *, kernel: int = 0) -> NDArray[np.float64]:
    """Share of a map's positive values in each cell of a mosaic.

    Args:
        maps: ``(n, h, w)`` of mosaics, not scaled.
        cells: along each side.
        kernel: odd size in pixels of the mean that maps are smoothed by, zeros around them, before
            negative values are dropped; none when 0. The paper's evaluation has 15, which favours
            maps of fine stripes of both signs.

    Returns:
        ``(n, cells, cells)``, summing to 1; NaN where a map has no positive value.

    Raises:
        ValueError: maps that cells do not divide, fewer than 2 cells, a kernel that is neither 0
            nor odd.

    Source:
        Boehle, Fritz and Schiele, CVPR 2021 (arXiv:2104.00032), section 5; smoothing as in their
        published evaluation.
    """
    found = checked(maps)
    height, width = found.shape[1:]
    if cells < 2 or height % cells or width % cells:
        raise ValueError(
            f"cells must be at least 2 and divide maps of {height} x {width} pixels, got {cells}"
        )
    if kernel < 0 or (kernel and kernel % 2 == 0):
        raise ValueError(f"kernel must be 0 or odd, got {kernel}")
    if kernel:
        found = _smoothed(found, kernel)
    parts = found.clip(0).reshape(len(found), cells, height // cells, cells, width // cells)
    mass = parts.sum((2, 4))
    return share(mass, np.broadcast_to(mass.sum((1, 2), keepdims=True), mass.shape))


def grid_pointing(
    maps: ArrayLike, targets: ArrayLike, cells: int, *, kernel: int = 0
) -> NDArray[np.float64]:
    """Share of a map's positive values in the cell of the class that it explains.

    Args:
        maps: ``(n, h, w)`` of mosaics, not scaled.
        targets: ``(n,)`` number of the cell, row by row from the top left.
        cells: along each side.
        kernel: as in :func:`cell_shares`.

    Returns:
        ``(n,)`` in [0, 1], ``1 / cells**2`` by chance; NaN where a map has no positive value.

    Raises:
        ValueError: as :func:`cell_shares`; targets of another number, or no cell.
    """
    shares = cell_shares(maps, cells, kernel=kernel).reshape(-1, cells * cells)
    chosen = np.asarray(targets)
    if chosen.shape != (len(shares),) or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"targets must be {len(shares)} numbers of cells, got {chosen.shape}")
    if len(chosen) and not (chosen.min() >= 0 and chosen.max() < cells**2):
        raise ValueError(f"targets must be in [0, {cells**2}), got {chosen.min()}..{chosen.max()}")
    found: NDArray[np.float64] = shares[np.arange(len(shares)), chosen]
    return found


def _smoothed(maps: Maps, kernel: int) -> Maps:
    """Means of squares; what rounding leaves of means that are zero is zero."""
    means = uniform_filter(maps, (0, kernel, kernel), mode="constant")
    floor = 1e-12 * np.abs(maps).max((1, 2), keepdims=True, initial=0)
    smooth: Maps = np.where(np.abs(means) > floor, means, 0)
    return smooth
