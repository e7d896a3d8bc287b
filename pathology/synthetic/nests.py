"""Epithelial nests: their outlines on a jittered lattice, their lumina and their nuclei.

Both classes share outlines, and a tumour nest takes over the lumen and the nuclear area that a
normal gland of its outline would have. Colour therefore says nothing about the class; the size, the
shape and the order of nuclei do.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pathology.synthetic.lattice import Floats, uniforms
from pathology.synthetic.layout import TUMOUR, plan
from pathology.synthetic.spec import SyntheticSlideSpec

PITCH = 80.0
"""Distance between neighbouring nests in micrometres."""

REACH = 84.0
"""No point is owned by a nest whose centre is farther away, in micrometres."""

ANGLES = 64
"""Directions in which an outline is sampled, from 0 to 2 pi."""

_ROW = PITCH * float(np.sqrt(0.75))
_JITTER = 0.26 * PITCH
_KIND_CENTRE, _KIND_SHAPE, _KIND_CELLS = 20, 21, 22
_TURNS = np.arange(ANGLES) * (2 * np.pi / ANGLES)
_RAYS = np.stack([np.cos(_TURNS), np.sin(_TURNS)])
_AROUND = np.array(
    [(i, j) for j in range(-2, 3) for i in range(-2, 3) if (i, j) != (0, 0)], np.int64
).T

NORMAL_EDGE = 0.3
"""Width of the soft edge of a normal nucleus in micrometres."""

TUMOUR_EDGE = 1.35
"""The same for tumour: wider in proportion to the size, as perimeter per area is smaller."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Nuclei as arrays with one entry each.

    Args:
        x: centre in micrometres, shape (n,).
        y: the same, downwards.
        long: longer half axis in micrometres.
        short: shorter half axis.
        turn: direction of the longer axis in radians.
        waves: outline's harmonics 2, 3 and 4 as complex amplitudes, shape (n, 3).
        dark: haematoxylin concentration inside.
        edge: width of the soft edge in micrometres.
        grain: number from 0 to 1 that picks the chromatin.
        kind: value in the evidence raster, uint8.
    """

    x: Floats
    y: Floats
    long: Floats
    short: Floats
    turn: Floats
    waves: NDArray[np.complex128]
    dark: Floats
    edge: Floats
    grain: Floats
    kind: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Cells":
        """The nuclei that an index or mask picks."""
        return Cells(*(getattr(self, name)[index] for name in self.__slots__))

    @staticmethod
    def join(parts: list["Cells"]) -> "Cells":
        """All nuclei of several sets, in order; at least one set."""
        return Cells(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in Cells.__slots__)
        )


@dataclass(frozen=True, slots=True)
class Nests:
    """Neighbouring nests of one slide.

    Args:
        ix: lattice column, shape (n,).
        iy: lattice row.
        x: centre in micrometres.
        y: the same, downwards.
        radius: distance from centre to outline per direction in micrometres, shape (n, ANGLES).
        kind: class, 1 normal or 2 tumour.
    """

    ix: NDArray[np.int64]
    iy: NDArray[np.int64]
    x: Floats
    y: Floats
    radius: Floats
    kind: NDArray[np.uint8]


def nests_around(
    spec: SyntheticSlideSpec, left: float, top: float, right: float, bottom: float
) -> Nests:
    """All nests that may own a point of a box given in micrometres."""
    iy = np.arange(np.floor((top - REACH) / _ROW) - 1, np.ceil((bottom + REACH) / _ROW) + 2)
    ix = np.arange(np.floor((left - REACH) / PITCH) - 2, np.ceil((right + REACH) / PITCH) + 2)
    columns, rows = (a.ravel().astype(np.int64) for a in np.meshgrid(ix, iy))
    x, y = _centres(spec, columns, rows)
    near = (x > left - REACH) & (x < right + REACH) & (y > top - REACH) & (y < bottom + REACH)
    columns, rows, x, y = columns[near], rows[near], x[near], y[near]
    return Nests(
        columns, rows, x, y, _outlines(spec, columns, rows, x, y), plan(spec).classes(x, y)
    )


def _centres(
    spec: SyntheticSlideSpec, ix: NDArray[np.int64], iy: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Centres of nests in micrometres: a hexagonal lattice, each point moved a little."""
    move = (uniforms(spec.seed, _KIND_CENTRE, ix, iy, 2) * 2 - 1) * _JITTER
    return (ix + 0.5 * (iy & 1)) * PITCH + move[:, 0], iy * _ROW + move[:, 1]


def _outlines(
    spec: SyntheticSlideSpec,
    ix: NDArray[np.int64],
    iy: NDArray[np.int64],
    x: Floats,
    y: Floats,
) -> Floats:
    """Outlines (n, ANGLES) that stay inside each centre's Voronoi cell, with stroma between."""
    draw = uniforms(spec.seed, _KIND_SHAPE, ix, iy, 8)
    cap = 32.0 + 16.0 * draw[:, 0]
    # Inverse distances to the cell's walls; their high power mean is a rounded minimum.
    columns = (ix[:, None] + _AROUND[0]).ravel()
    rows = (iy[:, None] + _AROUND[1]).ravel()
    to_x, to_y = (a.reshape(len(ix), -1) for a in _centres(spec, columns, rows))
    to_x, to_y = to_x - x[:, None], to_y - y[:, None]
    along = to_x[..., None] * _RAYS[0] + to_y[..., None] * _RAYS[1]
    wall = 2 * np.maximum(along, 0) / (to_x**2 + to_y**2)[..., None]
    wall *= wall
    wall *= wall
    wall *= wall
    radius = ((1.0 / cap[:, None]) ** 8 + wall.sum(1)) ** (-1 / 8)
    gap = 1.5 + 4.0 * draw[:, 1, None]
    bend = np.zeros_like(radius)
    for k in (2, 3, 5):
        bend += 0.035 * np.cos(k * _TURNS + 2 * np.pi * draw[:, k, None])
    return np.asarray((radius - gap) * (1 - 0.06 + bend))


@lru_cache(maxsize=4096)
def nest_interior(spec: SyntheticSlideSpec, ix: int, iy: int) -> tuple[Cells, Floats]:
    """Nuclei and lumina of one nest.

    Returns:
        The nuclei, and lumina with one row each: centre x and y in micrometres and ANGLES radii,
        shape (m, 2 + ANGLES).
    """
    at = np.array([ix]), np.array([iy])
    x, y = _centres(spec, *at)
    radius = _outlines(spec, *at, x, y)[0]
    kind = int(plan(spec).classes(x, y)[0])
    # numpy's generator takes no negative seeds; lattice indices start a little below zero.
    rng = np.random.default_rng([spec.seed, _KIND_CELLS, ix + 2**20, iy + 2**20])
    gland = _gland(rng, radius)
    thickness = rng.uniform(18.0, 20.5)
    lumen = np.maximum(radius - thickness, 0.3 * radius) * rng.uniform(0.85, 1.0)
    for k in (5, 7, 9):
        lumen = lumen * (1 + 0.03 * np.cos(k * _TURNS + rng.uniform(0, 2 * np.pi)))
    # A tumour's lumen differs in its place alone, so that nuclei are the evidence of the class.
    turn = rng.uniform(0, 2 * np.pi)
    move = max(float((radius - lumen).min()) - 5.0, 0.0) * np.sqrt(rng.uniform())
    aside = np.concatenate([[move * np.cos(turn), move * np.sin(turn)], lumen])[None]
    solid = _tumour(rng, radius, aside, _area(gland))
    # Large nuclei cannot always be packed as densely, so a gland gives up those that would be lost.
    gland = _thinned(rng, gland, _area(solid))
    if kind == TUMOUR:
        lumina, cells = aside, solid
    else:
        lumina, cells = np.concatenate([[0.0, 0.0], lumen])[None], gland
    lumina[:, 0] += x
    lumina[:, 1] += y
    placed = {name: getattr(cells, name) for name in Cells.__slots__}
    return Cells(**(placed | {"x": cells.x + x, "y": cells.y + y})), lumina


def _gland(rng: np.random.Generator, radius: Floats) -> Cells:
    """Two ordered rows of small round nuclei along the outline of a gland at the origin."""
    rows = []
    for depth, step, keep in ((5.4, 8.5, 1.0), (13.0, 8.8, 0.95)):
        ring = np.maximum(np.append(radius, radius[0]) - depth, 3.0)
        turns = np.append(_TURNS, 2 * np.pi)
        length = np.hypot(np.diff(ring), ring[:-1] * (2 * np.pi / ANGLES))
        walked = np.append(0.0, np.cumsum(length))
        count = max(3, int(walked[-1] / step))
        stops = (np.arange(count) + rng.uniform()) / count + rng.normal(0, 0.06, count) / count
        turn = np.interp(stops % 1.0 * walked[-1], walked, turns)
        place = np.interp(turn, turns, ring) + rng.normal(0, 0.6, count)
        kept = rng.uniform(size=count) < keep
        rows.append(np.stack([turn, place])[:, kept])
    turn, place = np.concatenate(rows, axis=1)
    n = len(turn)
    size = np.clip(rng.normal(3.15, 0.16, n), 2.6, 3.7)
    stretch = rng.uniform(1.02, 1.16, n)
    return Cells(
        x=place * np.cos(turn),
        y=place * np.sin(turn),
        long=size * np.sqrt(stretch),
        short=size / np.sqrt(stretch),
        turn=turn + rng.normal(0, 0.15, n),
        waves=_waves(rng, n, 0.012),
        dark=_darkness(rng, n),
        edge=np.full(n, NORMAL_EDGE),
        grain=rng.uniform(size=n),
        kind=np.full(n, 1, np.uint8),
    )


def _area(cells: Cells) -> float:
    """Sum of the nuclei's areas in square micrometres, waves included."""
    waves = 1 + (np.abs(cells.waves) ** 2).sum(1) / 2
    return float((np.pi * cells.long * cells.short * waves).sum())


def _thinned(rng: np.random.Generator, cells: Cells, area: float) -> Cells:
    """The nuclei without a random few, so that their areas add up to about ``area``."""
    order = rng.permutation(len(cells))
    kept = cells.take(order)
    total = np.cumsum(np.pi * kept.long * kept.short)
    # Half a nucleus of tolerance on either side keeps the mean error at zero.
    count = int((total <= area + 16.0).sum())
    return cells.take(np.sort(order[:count]))


def _tumour(rng: np.random.Generator, radius: Floats, lumina: Floats, budget: float) -> Cells:
    """Large irregular nuclei of random direction that fill a nest up to an area budget."""
    n = 400
    size = np.clip(4.75 * np.exp(rng.normal(0, 0.2, n)), 3.4, 7.2)
    stretch = rng.uniform(1.0, 1.75, n)
    long, short = size * np.sqrt(stretch), size / np.sqrt(stretch)
    turn = rng.uniform(0, 2 * np.pi, n)
    outline = np.interp(turn, _TURNS, radius, period=2 * np.pi)
    place = outline * np.sqrt(rng.uniform(size=n))
    x, y = place * np.cos(turn), place * np.sin(turn)
    free = place < outline - size - 0.6
    for hole in lumina:
        angle = np.arctan2(y - hole[1], x - hole[0])
        wall = np.interp(angle, _TURNS, hole[2:], period=2 * np.pi)
        free &= np.hypot(x - hole[0], y - hole[1]) > wall + size + 0.4
    chosen: list[int] = []
    filled = 0.0
    # Three rounds with ever less room asked for between nuclei, until the budget is spent.
    for room in (1.2, 1.05, 0.92):
        open_now = free.copy()
        for i in chosen:
            open_now &= np.hypot(x - x[i], y - y[i]) > room * (size + size[i])
        for i in range(n):
            if open_now[i] and filled + np.pi * size[i] ** 2 <= budget + 35.0:
                chosen.append(i)
                filled += float(np.pi * size[i] ** 2)
                open_now &= np.hypot(x - x[i], y - y[i]) > room * (size + size[i])
                if filled >= budget - 35.0:
                    break
        if filled >= budget - 35.0:
            break
    picked = np.asarray(chosen, np.intp)
    m = len(picked)
    return Cells(
        x=x[picked],
        y=y[picked],
        long=long[picked],
        short=short[picked],
        turn=rng.uniform(0, 2 * np.pi, m),
        waves=_waves(rng, m, 0.065),
        dark=_darkness(rng, m),
        edge=np.full(m, TUMOUR_EDGE),
        grain=rng.uniform(size=m),
        kind=np.full(m, TUMOUR, np.uint8),
    )


def _waves(rng: np.random.Generator, n: int, size: float) -> NDArray[np.complex128]:
    """Random harmonics 2, 3 and 4 of an outline, shape (n, 3)."""
    size_k = np.abs(rng.normal(0, size, (n, 3))) * np.array([1.0, 0.9, 0.7])
    waves: NDArray[np.complex128] = size_k * np.exp(2j * np.pi * rng.uniform(size=(n, 3)))
    return waves


def _darkness(rng: np.random.Generator, n: int) -> Floats:
    """Haematoxylin of nuclei, drawn alike for both classes, shape (n,)."""
    return np.clip(rng.normal(1.5, 0.2, n), 1.0, 2.1)
