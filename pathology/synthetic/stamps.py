"""Drawing nuclei and holes into the planes of one block, from their geometry."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.synthetic.lattice import Floats
from pathology.synthetic.nests import ANGLES, Cells

TEXTURE = 512
"""Side of the periodic textures in samples."""

_BATCH = 48
_SIDES_UM = (4.0, 5.5, 7.0, 9.0, 12.0)


@dataclass(frozen=True, slots=True)
class Window:
    """A raster's place on the slide.

    Args:
        x: left column in level-0 pixels.
        y: top row.
        width: columns.
        height: rows.
        mpp: micrometres per pixel.
    """

    x: int
    y: int
    width: int
    height: int
    mpp: float

    def columns(self) -> Floats:
        """Centres of the columns in micrometres, shape (width,)."""
        return np.asarray((self.x + np.arange(self.width) + 0.5) * self.mpp, np.float64)

    def rows(self) -> Floats:
        """Centres of the rows in micrometres, shape (height,)."""
        return np.asarray((self.y + np.arange(self.height) + 0.5) * self.mpp, np.float64)


def draw_nuclei(
    cells: Cells,
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    evidence: NDArray[np.uint8],
    window: Window,
    fine: NDArray[np.float32],
    coarse: NDArray[np.float32],
) -> None:
    """Draws nuclei in place, later ones over earlier ones.

    Args:
        cells: nuclei; those that miss the window are skipped.
        haematoxylin: concentrations, shape (h, w); changed.
        eosin: the same for eosin; changed.
        evidence: kind of nucleus per pixel; changed where a nucleus covers the pixel's centre.
        window: where the planes lie.
        fine: periodic chromatin texture of small nuclei, shape (TEXTURE, TEXTURE), mean 0, sd 1.
        coarse: the same for tumour nuclei.
    """
    # A nucleus reaches beyond its longer axis by its waves and by half its soft edge.
    reach = cells.long * (1.0 + np.abs(cells.waves).sum(1)) + cells.edge + window.mpp
    bucket = np.searchsorted(_SIDES_UM, reach)
    for number in np.unique(bucket):
        # Buckets share one patch size, so that many nuclei are drawn by one set of array calls.
        limit = _SIDES_UM[number] if number < len(_SIDES_UM) else float(reach.max())
        side = 2 * int(np.ceil(limit / window.mpp)) + 2
        members = np.flatnonzero(bucket == number)
        left = np.floor(cells.x[members] / window.mpp).astype(np.int64) - side // 2 - window.x
        top = np.floor(cells.y[members] / window.mpp).astype(np.int64) - side // 2 - window.y
        seen = (left > -side) & (left < window.width) & (top > -side) & (top < window.height)
        members, left, top = members[seen], left[seen], top[seen]
        for start in range(0, len(members), _BATCH):
            part = slice(start, start + _BATCH)
            _draw_batch(
                cells.take(members[part]),
                left[part],
                top[part],
                side,
                (haematoxylin, eosin),
                evidence,
                window,
                (fine, coarse),
            )


def _draw_batch(
    cells: Cells,
    left: NDArray[np.int64],
    top: NDArray[np.int64],
    side: int,
    planes: tuple[NDArray[np.float32], NDArray[np.float32]],
    evidence: NDArray[np.uint8],
    window: Window,
    textures: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Draws nuclei of one patch size whose patches' corners are given in the window's pixels."""
    step = (np.arange(side) + 0.5) * window.mpp
    dx = ((left + window.x) * window.mpp - cells.x)[:, None] + step
    dy = ((top + window.y) * window.mpp - cells.y)[:, None] + step
    c, s = np.cos(cells.turn), np.sin(cells.turn)
    shape = (len(cells), side, side)
    along = np.empty(shape, np.complex64)
    along.real = _plane(dx * (c / cells.long)[:, None], dy * (s / cells.long)[:, None])
    along.imag = _plane(dx * (-s / cells.short)[:, None], dy * (c / cells.short)[:, None])
    radius = np.abs(along)
    np.maximum(radius, np.float32(1e-6), out=radius)
    along /= radius
    waves = cells.waves.astype(np.complex64)[:, :, None, None]
    # Horner's scheme for the sum of waves[k] * e**(i * (k + 2) * angle).
    bend = ((waves[:, 2] * along + waves[:, 1]) * along + waves[:, 0]) * along * along
    radius /= 1 + bend.real
    scale = np.sqrt(cells.long * cells.short).astype(np.float32)[:, None, None]
    edge = np.maximum(cells.edge, 0.5 * window.mpp).astype(np.float32)[:, None, None]
    cover = np.clip((1 - radius) * (scale / edge) + np.float32(0.5), 0, 1)
    # Blur of light thins an edge's stain, most in small nuclei, so tumour nuclei start thinner.
    thin = np.where(cells.kind == 2, 0.15, 0.0).astype(np.float32)[:, None, None]
    cover -= thin * cover * (1 - cover)
    # The profile is a function of the relative radius, so its histogram is that of any size.
    rim = np.clip((radius - np.float32(0.62)) * np.float32(3.5), 0, 1)
    inner = cells.dark.astype(np.float32)[:, None, None] * (np.float32(0.86) + 0.22 * rim)
    spot_x, spot_y = 0.38 * np.cos(cells.grain * 40), 0.38 * np.sin(cells.grain * 40)
    spot = np.abs(along * radius - (spot_x + 1j * spot_y).astype(np.complex64)[:, None, None])
    # A nucleolus of a small nucleus loses more to blur, so it starts out darker.
    nucleolus = np.where(cells.kind == 2, 0.45, 0.75).astype(np.float32)[:, None, None]
    inner += np.clip((np.float32(0.27) - spot) * np.float32(8), 0, 1) * nucleolus
    haematoxylin, eosin = planes
    for i in range(len(cells)):
        t, le = int(top[i]), int(left[i])
        rows = slice(max(t, 0), min(t + side, window.height))
        columns = slice(max(le, 0), min(le + side, window.width))
        cut = (slice(rows.start - t, rows.stop - t), slice(columns.start - le, columns.stop - le))
        offset = int(cells.grain[i] * 2**20)
        texture = textures[1 if cells.kind[i] == 2 else 0]
        ty, tx = offset % (TEXTURE - side), (offset // TEXTURE) % (TEXTURE - side)
        chromatin = texture[ty : ty + side, tx : tx + side][cut]
        m = cover[i][cut]
        dark = inner[i][cut] * (1 + np.float32(0.12) * chromatin)
        h = haematoxylin[rows, columns]
        h += m * (dark - h)
        eosin[rows, columns] *= 1 - np.float32(0.45) * m
        evidence[rows, columns][radius[i][cut] <= 1] = cells.kind[i]


def _plane(across: Floats, down: Floats) -> NDArray[np.float32]:
    """Sum of a term per column and a term per row, (n, side) each, as (n, side, side)."""
    plane: NDArray[np.float32] = (
        across.astype(np.float32)[:, None, :] + down.astype(np.float32)[:, :, None]
    )
    return plane


def hole_field(rows: Floats, window: Window, reach: float) -> NDArray[np.float32]:
    """Depth inside the nearest of several star-shaped holes.

    Args:
        rows: one hole each: centre x and y in micrometres, ANGLES radii; shape (n, 2 + ANGLES).
        window: where the field lies.
        reach: how far outside a hole the field is worked out, in micrometres.

    Returns:
        Depth in micrometres, negative outside and ``-reach`` far away, shape (h, w).
    """
    field = np.full((window.height, window.width), -reach, np.float32)
    columns, lines = window.columns(), window.rows()
    for row in rows:
        span = float(row[2:].max()) + reach
        x0, x1 = np.searchsorted(columns, (row[0] - span, row[0] + span))
        y0, y1 = np.searchsorted(lines, (row[1] - span, row[1] + span))
        if x0 == x1 or y0 == y1:
            continue
        dx = (columns[x0:x1] - row[0]).astype(np.float32)[None, :]
        dy = (lines[y0:y1] - row[1]).astype(np.float32)[:, None]
        depth = radius_towards(row[2:], np.arctan2(dy, dx)) - np.hypot(dx, dy)
        part = field[y0:y1, x0:x1]
        np.maximum(part, depth, out=part)
    return field


def radius_towards(
    radii: Floats, turn: NDArray[np.float32], base: NDArray[np.intp] | int = 0
) -> NDArray[np.float32]:
    """Radius of an outline in given directions, linear between its samples.

    Args:
        radii: samples of one outline, or of several one after the other, shape (n * ANGLES,).
        turn: directions in radians from -pi to pi, any shape.
        base: where in ``radii`` the outline of each direction starts.
    """
    position = turn * np.float32(ANGLES / (2 * np.pi)) + np.float32(ANGLES)
    slot = position.astype(np.intp)
    part = position - slot.astype(np.float32)
    table = radii.astype(np.float32)
    low = table[base + slot % ANGLES]
    high = table[base + (slot + 1) % ANGLES]
    radius: NDArray[np.float32] = low + part * (high - low)
    return radius
