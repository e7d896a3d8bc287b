"""Cutting a slide into tiles."""

import math

import numpy as np
from numpy.typing import NDArray

from pathology.errors import NoTissueError
from pathology.geometry import level0_length
from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tiling.grid import GridSource, TileGrid
from pathology.tiling.spec import TileSpec
from pathology.tissue import OtsuTissue, TissueFinder

# Sums over areas are rounded: a tile that is just half tissue must pass a limit of one half.
ROUNDING = 1e-6


def tile_slide(
    slide: Slide, spec: TileSpec, tissue: SlideMap | TissueFinder | None = None
) -> TileGrid:
    """The tiles of a regular grid that hold enough tissue.

    The grid starts at the upper left corner of ``slide.bounds``. A tile lies at its index times the
    stride in real level-0 pixels, so no rounding adds up along the slide. Tiles are sorted by rows,
    then columns.

    Args:
        slide: the slide.
        spec: size, scale, overlap, and how much tissue is enough.
        tissue: fraction of tissue on this slide, or what finds it; :class:`OtsuTissue` when
            omitted. What lies outside of the map counts as background.

    Raises:
        NoTissueError: no tile is left.
        SlideOpenError: the file is damaged, or gone.
    """
    width = level0_length(spec.size_px, spec.mpp, slide.mpp.x)
    height = level0_length(spec.size_px, spec.mpp, slide.mpp.y)
    stride_x = level0_length(spec.stride_px, spec.mpp, slide.mpp.x)
    stride_y = level0_length(spec.stride_px, spec.mpp, slide.mpp.y)
    bounds = slide.bounds
    columns = _count(bounds.width, width, stride_x, spec.keep_edges)
    rows = _count(bounds.height, height, stride_y, spec.keep_edges)
    if columns == 0 or rows == 0:
        raise NoTissueError(
            f"smaller than one tile: {bounds.width:g} x {bounds.height:g} level-0 px, a tile is "
            f"{width:g} x {height:g}; use keep_edges=True or smaller tiles",
            slide.path,
        )
    x = np.tile(bounds.x + np.arange(columns) * stride_x, rows)
    y = np.repeat(bounds.y + np.arange(rows) * stride_y, columns)
    fraction = _tissue_map(slide, tissue).box_means(_boxes(x, y, width, height))
    keep = fraction >= spec.min_tissue - ROUNDING
    if not keep.any():
        raise NoTissueError(
            f"none of {len(x)} tiles holds enough tissue: at most {fraction.max():.3f}, wanted "
            f"{spec.min_tissue:g}; lower min_tissue, or look at what the tissue finder found",
            slide.path,
        )
    source = GridSource.of(slide)
    # Clipped because differences of large sums leave 1 + 1e-12.
    tissue_column = np.clip(fraction[keep], 0, 1).astype(np.float32)
    return TileGrid(spec, source, x[keep], y[keep], tissue_column)


def _count(length: float, side: float, stride: float, keep_edges: bool) -> int:
    """Tiles along one side of the slide; all lengths in level-0 pixels.

    With ``keep_edges`` as many as it takes to cover it, else as many as fit.
    """
    steps = (length - side) / stride
    if keep_edges:
        return max(0, math.ceil(steps - ROUNDING)) + 1
    return max(0, math.floor(steps + ROUNDING) + 1)


def _boxes(
    x: NDArray[np.float64], y: NDArray[np.float64], width: float, height: float
) -> NDArray[np.float64]:
    return np.stack([x, y, np.full_like(x, width), np.full_like(y, height)], axis=1)


def _tissue_map(slide: Slide, tissue: SlideMap | TissueFinder | None) -> SlideMap:
    if isinstance(tissue, SlideMap):
        return tissue
    return (OtsuTissue() if tissue is None else tissue).find(slide)
