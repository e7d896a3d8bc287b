"""What lies between the nests, alike in both classes: spindle nuclei, lymphocytes, small fat."""

import numpy as np
from numpy.typing import NDArray

from pathology.synthetic.lattice import Floats, uniforms
from pathology.synthetic.nests import ANGLES, Cells, Nests
from pathology.synthetic.spec import SyntheticSlideSpec

SPINDLE = 3
LYMPHOCYTE = 4

_KIND_SPINDLE, _KIND_LYMPHOCYTE, _KIND_FAT = 30, 31, 32


def outside_distance(nests: Nests, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """How far points are outside their nearest nest, and in which direction from its centre.

    Args:
        nests: all nests that may own one of the points.
        x: points in micrometres, shape (n,).
        y: the same, downwards.

    Returns:
        Distance in micrometres, negative inside, and direction in radians; shape (n,) each.
    """
    dx, dy = x[:, None] - nests.x, y[:, None] - nests.y
    away = np.hypot(dx, dy)
    owner = away.argmin(1)
    each = np.arange(len(x))
    turn = np.arctan2(dy[each, owner], dx[each, owner])
    slot = np.floor(turn * (ANGLES / (2 * np.pi)) + 0.5).astype(np.intp) % ANGLES
    return away[each, owner] - nests.radius[owner, slot], turn


def stroma_cells(
    spec: SyntheticSlideSpec,
    nests: Nests,
    fat: Floats,
    left: float,
    top: float,
    right: float,
    bottom: float,
) -> Cells:
    """Nuclei of fibroblasts and lymphocytes whose centres lie in a box of micrometres.

    Args:
        spec: the slide.
        nests: all nests that may own a point of the box.
        fat: the fat cells of the box, as :func:`fat_cells` gives them; they hold no nuclei.
        left: the box, in micrometres.
        top: the same.
        right: the same.
        bottom: the same.
    """
    spindles = _scatter(spec, _KIND_SPINDLE, 13.0, (left, top, right, bottom))
    x, y, draw = spindles[:, 0], spindles[:, 1], spindles[:, 2:]
    outside, turn = outside_distance(nests, x, y)
    long = 4.0 + 4.0 * draw[:, 0]
    keep = (outside > 1.8) & (draw[:, 1] < 0.55) & _clear_of(fat, x, y, 0.5)
    n = len(x)
    fibres = Cells(
        x=x,
        y=y,
        long=long,
        short=1.0 + 0.7 * draw[:, 2],
        # Fibres run round the nests, so their cells do too.
        turn=turn + np.pi / 2 + (draw[:, 3] - 0.5) * 0.9,
        waves=(draw[:, 4:7] * 0.10) * np.exp(2j * np.pi * draw[:, 7:10]),
        dark=1.3 + 0.5 * draw[:, 10],
        edge=np.full(n, 0.4),
        grain=draw[:, 11],
        kind=np.full(n, SPINDLE, np.uint8),
    ).take(keep)
    round_ones = _scatter(spec, _KIND_LYMPHOCYTE, 10.0, (left, top, right, bottom))
    x, y, draw = round_ones[:, 0], round_ones[:, 1], round_ones[:, 2:]
    outside, _ = outside_distance(nests, x, y)
    # A lattice cell of 10 x 10 micrometres holds a tenth of the number per 1000.
    keep = (outside > 3.2) & (draw[:, 0] < spec.lymphocytes * 0.1) & _clear_of(fat, x, y, 2.5)
    n = len(x)
    size = 2.3 + 0.6 * draw[:, 1]
    lymphocytes = Cells(
        x=x,
        y=y,
        long=size * 1.04,
        short=size * 0.96,
        turn=draw[:, 2] * 2 * np.pi,
        waves=(draw[:, 4:7] * 0.02) * np.exp(2j * np.pi * draw[:, 7:10]),
        dark=1.7 + 0.4 * draw[:, 10],
        edge=np.full(n, 0.4),
        grain=draw[:, 11],
        kind=np.full(n, LYMPHOCYTE, np.uint8),
    ).take(keep)
    return Cells.join([fibres, lymphocytes])


def fat_cells(
    spec: SyntheticSlideSpec, nests: Nests, left: float, top: float, right: float, bottom: float
) -> Floats:
    """Fat cells in the wider gaps between nests.

    Returns:
        One row each: centre x and y in micrometres and ANGLES radii, shape (n, 2 + ANGLES).
    """
    spots = _scatter(spec, _KIND_FAT, 22.0, (left, top, right, bottom))
    x, y, draw = spots[:, 0], spots[:, 1], spots[:, 2:]
    outside, _ = outside_distance(nests, x, y)
    size = np.minimum(5.0 + 9.0 * draw[:, 0], outside - 1.0)
    keep = (size > 4.5) & (draw[:, 1] < 0.35)
    turns = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    shape = 1 + 0.08 * np.cos(2 * turns + 2 * np.pi * draw[:, 2, None])
    shape = shape + 0.04 * np.cos(3 * turns + 2 * np.pi * draw[:, 3, None])
    rows = np.concatenate([x[:, None], y[:, None], size[:, None] * shape * 0.95], axis=1)
    return rows[keep]


def _clear_of(fat: Floats, x: Floats, y: Floats, room: float) -> NDArray[np.bool_]:
    """Whether points keep ``room`` micrometres away from every fat cell, shape (n,)."""
    if not len(fat):
        return np.ones(len(x), np.bool_)
    away = np.hypot(x[:, None] - fat[:, 0], y[:, None] - fat[:, 1])
    return np.asarray((away > fat[:, 2:].max(1) + room).all(1))


def _scatter(
    spec: SyntheticSlideSpec, kind: int, step: float, box: tuple[float, float, float, float]
) -> Floats:
    """One point per lattice cell of ``step`` micrometres with 12 numbers, shape (n, 14)."""
    left, top, right, bottom = box
    ix = np.arange(np.floor(left / step) - 1, np.ceil(right / step) + 1)
    iy = np.arange(np.floor(top / step) - 1, np.ceil(bottom / step) + 1)
    columns, rows = (a.ravel().astype(np.int64) for a in np.meshgrid(ix, iy))
    draw = uniforms(spec.seed, kind, columns, rows, 14)
    x, y = (columns + draw[:, 0]) * step, (rows + draw[:, 1]) * step
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return np.concatenate([x[:, None], y[:, None], draw[:, 2:]], axis=1)[inside]
