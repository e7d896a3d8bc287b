"""A region of a slide to be painted over: which tiles it touches, and which of their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box, Mpp

if TYPE_CHECKING:
    from pathology.slides import Slide
    from pathology.tiling import TileGrid
    from pathology.viewer.model.question import Fill

GREY = (128, 128, 128)
VIEW_PX = 1024
"""Longer side of the view of a slide that the mean colour of its tiles is taken from."""


@dataclass(frozen=True)
class Region:
    """The union of polygons, as far as it lies on a slide.

    Args:
        polygons: each a ring and its holes, in level-0 pixels; of one that crosses itself all that
            it encloses counts, as in a region's sum.
        size: width and height of the slide, beyond which there is nothing to paint.
    """

    polygons: Sequence[Sequence[Sequence[Sequence[float]]]]
    size: tuple[float, float]

    @cached_property
    def geometry(self) -> Any:
        """A valid shapely geometry, prepared."""
        import shapely

        from pathology.annotations.annotation import only_polygons
        from pathology.viewer.regions.regions import enclosed

        union = shapely.union_all([enclosed(rings) for rings in self.polygons])
        on_slide = only_polygons(shapely.intersection(union, shapely.box(0, 0, *self.size)))
        shapely.prepare(on_slide)
        return on_slide

    def area_mm2(self, mpp: Mpp) -> float:
        """Its area on a slide of these pixels."""
        return float(self.geometry.area * mpp.x * mpp.y * 1e-6)

    def touched(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the boxes ``(n, 4)``, rows ``x, y, width, height``, it meets."""
        import shapely

        x, y, width, height = boxes.T
        found: NDArray[np.bool_] = shapely.intersects(
            self.geometry, shapely.box(x, y, x + width, y + height)
        )
        return found

    def mask(self, box: Box, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels of what is read under ``box`` whose centre is inside, ``(height, width)``."""
        import shapely

        frame = shapely.box(box.x, box.y, box.right, box.bottom)
        if self.geometry.contains(frame):
            return np.ones((height, width), bool)
        if not self.geometry.intersects(frame):
            return np.zeros((height, width), bool)
        x = box.x + (np.arange(width) + 0.5) * (box.width / width)
        y = box.y + (np.arange(height) + 0.5) * (box.height / height)
        found: NDArray[np.bool_] = shapely.contains_xy(
            self.geometry, *(each.ravel() for each in np.meshgrid(x, y))
        ).reshape(height, width)
        return found


def fill_colour(fill: "Fill", slide: "Slide", grid: "TileGrid") -> tuple[int, int, int]:
    """The colour that a region is painted with, before tiles are normalised.

    Args:
        fill: see :class:`~pathology.viewer.model.question.MaskQuestion`.
        slide: the slide.
        grid: its tiles.
    """
    if fill == "background":
        red, green, blue = slide.background
        return int(red), int(green), int(blue)
    return GREY if fill == "grey" else _mean_colour(slide, grid)


def _mean_colour(slide: "Slide", grid: "TileGrid") -> tuple[int, int, int]:
    """Of what the tiles cover, as a small view shows it; by pixels whose centre is in a tile."""
    view = slide.thumbnail(VIEW_PX)
    scale = np.array([view.shape[1], view.shape[0]]) / np.array(slide.size)
    boxes = grid.boxes()
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    # The first pixel centre that is not left of each edge.
    edges = np.ceil(corners * np.tile(scale, 2) - 0.5).astype(int).clip(0)
    inside = np.zeros(view.shape[:2], bool)
    for left, top, right, bottom in edges:
        inside[top:bottom, left:right] = True
    if not inside.any():  # tiles smaller than a pixel of the view
        x, y = (corners.reshape(-1, 2, 2).mean(1) * scale).astype(int).T
        inside[y.clip(0, view.shape[0] - 1), x.clip(0, view.shape[1] - 1)] = True
    red, green, blue = np.rint(view[inside].mean(0)).astype(int).tolist()
    return red, green, blue
