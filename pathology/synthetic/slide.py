"""Rendering of any region of a synthetic slide together with its exact ground truth."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from pathology.synthetic.lattice import SmoothNoise, uniforms
from pathology.synthetic.layout import plan
from pathology.synthetic.nests import REACH, Cells, Nests, nest_interior, nests_around
from pathology.synthetic.spec import SyntheticSlideSpec
from pathology.synthetic.stains import Stains, draw_stains, stain_to_rgb
from pathology.synthetic.stamps import (
    TEXTURE,
    Window,
    draw_nuclei,
    hole_field,
    radius_towards,
)
from pathology.synthetic.stroma import fat_cells, stroma_cells

__all__ = ["BLOCK", "Rendering", "SyntheticSlideSpec", "render"]

BLOCK = 512
"""Side in pixels of the squares that are rendered as a whole, on a grid from the slide's origin."""

_KIND_STAIN, _KIND_NOISE, _KIND_TEXTURE, _KIND_FIBRE = 40, 41, 42, 43
_KIND_WOBBLE, _KIND_THICK, _KIND_CYTOPLASM, _KIND_LOOSE = 44, 45, 46, 47

_CELL_REACH = 14.0
"""No nucleus reaches farther from its centre than this, in micrometres."""

_FAT_REACH = 18.0
"""No fat cell keeps nuclei farther from its centre than this, in micrometres."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A rectangle of a slide and its ground truth.

    Args:
        rgb: colours as scanned, before JPEG, uint8, shape (h, w, 3).
        regions: 0 no tissue, 1 normal, 2 tumour; uint8, shape (h, w).
        evidence: which nucleus covers the pixel: 0 none, 1 normal epithelium, 2 tumour,
            3 spindle cell of the stroma, 4 lymphocyte; uint8, shape (h, w).
    """

    rgb: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    evidence: NDArray[np.uint8]


def render(spec: SyntheticSlideSpec, x: int, y: int, w: int, h: int) -> Rendering:
    """Renders a rectangle of a slide, the same pixels whatever rectangle they are asked in.

    Work is done in whole squares of :data:`BLOCK` pixels, so large rectangles are faster per pixel.

    Args:
        spec: the slide.
        x: left column in level-0 pixels.
        y: top row.
        w: columns.
        h: rows.

    Raises:
        ValueError: a rectangle that is empty or not wholly on the slide.
    """
    width, height = spec.size_px
    if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
        raise ValueError(f"({x}, {y}, {w}, {h}) is not on a slide of {width} x {height} pixels")
    out = Rendering(
        np.empty((h, w, 3), np.uint8), np.empty((h, w), np.uint8), np.empty((h, w), np.uint8)
    )
    for by in range(y // BLOCK, (y + h - 1) // BLOCK + 1):
        for bx in range(x // BLOCK, (x + w - 1) // BLOCK + 1):
            block = _block(spec, bx, by)
            left, top = max(x, bx * BLOCK), max(y, by * BLOCK)
            right, bottom = min(x + w, (bx + 1) * BLOCK), min(y + h, (by + 1) * BLOCK)
            into = (slice(top - y, bottom - y), slice(left - x, right - x))
            cut = (
                slice(top - by * BLOCK, bottom - by * BLOCK),
                slice(left - bx * BLOCK, right - bx * BLOCK),
            )
            for name in ("rgb", "regions", "evidence"):
                getattr(out, name)[into] = getattr(block, name)[cut]
    return out


@dataclass(frozen=True, slots=True)
class _Materials:
    """What a whole slide shares: its stains and periodic textures of mean 0 and sd 1."""

    stains: Stains
    noise: float
    fine: NDArray[np.float32]
    coarse: NDArray[np.float32]
    fibre: NDArray[np.float32]


@lru_cache(maxsize=4)
def _materials(spec: SyntheticSlideSpec) -> _Materials:
    rng = np.random.default_rng([spec.seed, _KIND_STAIN])
    stains = draw_stains(rng)
    noise = float(rng.uniform(1.2, 2.6))
    rng = np.random.default_rng([spec.seed, _KIND_TEXTURE])
    blur = _blur(spec)
    fibre = 0.8 * _texture(rng, 0.8, 12.0) + 0.8 * _texture(rng, 2.4, 26.0)
    fibre += 0.5 * _texture(rng, 7.0, 50.0)
    return _Materials(
        stains,
        noise,
        _chromatin(rng, 0.32 / spec.mpp, blur),
        _chromatin(rng, 0.60 / spec.mpp, blur),
        (fibre / fibre.std()).astype(np.float32),
    )


def _texture(rng: np.random.Generator, down: float, across: float) -> NDArray[np.float32]:
    """Periodic Gaussian noise of a given grain in samples, shape (TEXTURE, TEXTURE)."""
    frequency = fft.fftfreq(TEXTURE) * 2 * np.pi
    keep = np.exp(-0.5 * (frequency[:, None] * down) ** 2 - 0.5 * (frequency * across) ** 2)
    noise = fft.ifft2(fft.fft2(rng.normal(size=(TEXTURE, TEXTURE))) * keep).real
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def _chromatin(rng: np.random.Generator, grain: float, blur: float) -> NDArray[np.float32]:
    """Texture of a grain in samples whose standard deviation is 1 once it has been blurred."""
    texture = _texture(rng, grain, grain)
    return np.asarray(texture / ndimage.gaussian_filter(texture, blur, mode="wrap").std())


def _blur(spec: SyntheticSlideSpec) -> float:
    """Blur of optics and sensor together, standard deviation in pixels."""
    return float(np.hypot(0.33 / spec.mpp, 0.4))


def _block(spec: SyntheticSlideSpec, bx: int, by: int) -> Rendering:
    """One square of the grid; a pure function of its arguments."""
    sigma = _blur(spec)
    halo = int(np.ceil(3 * sigma)) + 1
    # Blocks end where the slide ends, which is part of the specification, not of the request.
    width = min(BLOCK, spec.size_px[0] - bx * BLOCK)
    height = min(BLOCK, spec.size_px[1] - by * BLOCK)
    window = Window(
        bx * BLOCK - halo, by * BLOCK - halo, width + 2 * halo, height + 2 * halo, spec.mpp
    )
    columns, rows = window.columns(), window.rows()
    depth = plan(spec).depth(columns, rows)
    materials = _materials(spec)
    inner = (slice(halo, halo + height), slice(halo, halo + width))
    if depth.max() < -2.0:
        evidence = regions = np.zeros((height, width), np.uint8)
        light = np.empty((height, width, 3), np.float32)
        light[:] = materials.stains.white
    else:
        haematoxylin, eosin, regions, evidence = _concentrations(spec, window, depth, materials)
        light = stain_to_rgb(haematoxylin, eosin, materials.stains)
        for axis in (0, 1):
            light = ndimage.gaussian_filter1d(
                light, sigma, axis=axis, radius=halo - 1, mode="nearest"
            )
        light, regions, evidence = light[inner], regions[inner], evidence[inner]
    rng = np.random.default_rng([spec.seed, _KIND_NOISE, bx, by])
    grain = rng.standard_normal((height, width, 3), np.float32) * np.float32(materials.noise)
    rgb = np.clip(light + grain + np.float32(0.5), 0, 255).astype(np.uint8)
    return Rendering(rgb, regions, evidence)


def _concentrations(
    spec: SyntheticSlideSpec,
    window: Window,
    depth: NDArray[np.float32],
    materials: _Materials,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    """Haematoxylin, eosin, regions and evidence of a window with tissue, shape (h, w) each."""
    columns, rows = window.columns(), window.rows()
    # Nuclei just outside the window reach into it, and fat farther out still decides which of
    # them there are.
    near = _widened(window, _CELL_REACH)
    wide = _widened(window, _CELL_REACH + _FAT_REACH)
    nests = nests_around(spec, *wide)
    owner, along, away = _polar(nests, window)
    inside = radius_towards(nests.radius.ravel(), along, owner * nests.radius.shape[1])
    inside -= away

    def noise(kind: int, period: float) -> NDArray[np.float32]:
        return SmoothNoise(spec.seed, kind, period).grid(columns, rows)

    # Stroma: fibres that run round the nests.
    start = uniforms(spec.seed, _KIND_FIBRE, nests.ix, nests.iy, 2) * TEXTURE
    across = inside * np.float32(2.0) + noise(_KIND_WOBBLE, 11.0) * np.float32(7.0)
    across += start[:, 0].astype(np.float32)[owner]
    round_it = along * np.float32(TEXTURE / (2 * np.pi)) + start[:, 1].astype(np.float32)[owner]
    fibre = materials.fibre[across.astype(np.int32) % TEXTURE, round_it.astype(np.int32) % TEXTURE]
    loose = noise(_KIND_LOOSE, 24.0)
    eosin = np.float32(0.80) + np.float32(0.24) * fibre
    eosin *= np.clip((fibre + 1.9 + 0.4 * loose) * np.float32(1.2), 0.08, 1)
    haematoxylin = np.float32(0.10) * eosin

    # Epithelium: granular cytoplasm that takes up both stains.
    texture = materials.fine[
        (np.arange(window.y, window.y + window.height) % TEXTURE)[:, None],
        np.arange(window.x, window.x + window.width) % TEXTURE,
    ]
    cell = noise(_KIND_CYTOPLASM, 7.0)
    nest = np.clip(inside * np.float32(1.2) + np.float32(0.5), 0, 1)
    cytoplasm = np.float32(0.60) + np.float32(0.055) * texture + np.float32(0.09) * cell
    eosin += nest * (cytoplasm - eosin)
    haematoxylin += nest * (cytoplasm * np.float32(0.52) - haematoxylin)

    # Lumina and fat: nearly nothing to absorb light.
    interiors = [
        nest_interior(spec, int(i), int(j)) for i, j in zip(nests.ix, nests.iy, strict=True)
    ]
    lumina = np.concatenate([lumen for _, lumen in interiors])
    fat = fat_cells(spec, nests, *wide)
    hole = hole_field(np.concatenate([lumina, fat]), window, 1.0)
    clear = 1 - np.float32(0.95) * np.clip(hole * np.float32(1.3) + np.float32(0.5), 0, 1)
    eosin *= clear
    haematoxylin *= clear

    evidence = np.zeros(depth.shape, np.uint8)
    cells = Cells.join(
        [stroma_cells(spec, nests, fat, *near), *(inhabitants for inhabitants, _ in interiors)]
    )
    draw_nuclei(cells, haematoxylin, eosin, evidence, window, materials.fine, materials.coarse)

    tissue = np.clip(depth * np.float32(0.5) + np.float32(0.5), 0, 1)
    tissue *= 1 + np.float32(0.06) * noise(_KIND_THICK, 130.0)
    haematoxylin *= tissue
    eosin *= tissue
    regions = np.where(depth > 0, nests.kind[owner], 0).astype(np.uint8)
    evidence[depth <= 0] = 0
    return haematoxylin, eosin, regions, evidence


def _widened(window: Window, by: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in micrometres of a window with a margin around it."""
    left, top = window.x * window.mpp, window.y * window.mpp
    right, bottom = left + window.width * window.mpp, top + window.height * window.mpp
    return left - by, top - by, right + by, bottom + by


def _polar(
    nests: Nests, window: Window
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Nearest nest of each pixel, direction from its centre in radians, and distance to it."""
    columns, rows = window.columns(), window.rows()
    shape = (window.height, window.width)
    best = np.full(shape, np.inf, np.float32)
    owner = np.zeros(shape, np.intp)
    reach = REACH
    for i, (x, y) in enumerate(zip(nests.x, nests.y, strict=True)):
        x0, x1 = np.searchsorted(columns, (x - reach, x + reach))
        y0, y1 = np.searchsorted(rows, (y - reach, y + reach))
        if x0 == x1 or y0 == y1:
            continue
        dx = (columns[x0:x1] - x).astype(np.float32)
        dy = (rows[y0:y1] - y).astype(np.float32)
        square = dx[None, :] ** 2 + dy[:, None] ** 2
        part = best[y0:y1, x0:x1]
        nearer = square < part
        np.copyto(part, square, where=nearer)
        np.copyto(owner[y0:y1, x0:x1], i, where=nearer)
    left = columns.astype(np.float32)[None, :] - nests.x.astype(np.float32)[owner]
    up = rows.astype(np.float32)[:, None] - nests.y.astype(np.float32)[owner]
    return owner, np.arctan2(up, left), np.sqrt(best)
