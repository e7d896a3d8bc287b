"""Cutting a slide into tiles."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathology.errors import NoTissueError
from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tiling.grid import GridSource, TileGrid
from pathology.tiling.placement import (
    ROUNDING,
    Field,
    Places,
    annotated_places,
    grid_places,
    jittered_places,
    random_places,
)
from pathology.tiling.spec import GIVEN, TileSpec
from pathology.tissue import Survey, survey

if TYPE_CHECKING:
    from pathology.annotations.regions import Regions


def tile_slide(
    slide: Slide,
    spec: TileSpec,
    tissue: SlideMap | Survey | None = None,
    regions: "Regions | None" = None,
) -> TileGrid:
    """The tiles of a slide, placed as ``spec`` says, that hold enough tissue.

    Tiles are sorted by rows, then columns. With ``placement="annotated"`` a column ``region`` has
    the class that each was drawn for. Random places are whole pixels at the tiles' mpp, counted
    from the corner of ``slide.bounds``.

    Args:
        slide: the slide.
        spec: size, scale, placement, and how much tissue is enough.
        tissue: the survey that ``spec`` asks for, where it was made before; made here when
            omitted. Or a map of the fraction of tissue from elsewhere: the grid's spec then says
            ``tissue="given"``. What lies outside of a map counts as background.
        regions: what people drew; needed for ``placement="annotated"``.

    Raises:
        NoTissueError: no tile is left.
        SlideError: ``align="file"``, and a tile does not cover whole tiles of the file.
        SlideOpenError: the file is damaged, or gone.
        ValueError: a spec that needs ``tissue`` or ``regions`` without it, or with another survey;
            a map of something else than fractions.
    """
    if spec.placement == "annotated" and regions is None:
        raise ValueError("placement annotated needs regions; give some or use another placement")
    spec, tissue_map = _tissue(slide, spec, tissue)
    width, height = (field := Field.of(slide, spec)).width, field.height
    best = 0.0  # the most tissue of any tile looked at

    def fractions(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal best
        sides = np.full_like(x, width), np.full_like(y, height)
        # Clipped because differences of large sums leave 1 + 1e-12.
        found = np.clip(tissue_map.box_means(np.stack([x, y, *sides], axis=1)), 0, 1)
        best = max(best, float(found.max(initial=0)))
        return found

    def is_kept(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = fractions(x, y) >= spec.min_tissue - ROUNDING
        return kept

    columns: dict[str, NDArray[np.str_]] = {}
    if spec.placement == "random":
        x, y = random_places(slide, spec, is_kept)
    elif spec.placement == "annotated":
        assert regions is not None
        parts = {n: annotated_places(slide, spec, regions, n, is_kept) for n in regions.names}
        x, y = (np.concatenate([part[axis] for part in parts.values()]) for axis in (0, 1))
        columns["region"] = np.repeat(list(parts), [len(part[0]) for part in parts.values()])
    else:
        x, y = _grid(slide, spec)
    fraction = fractions(x, y)
    keep = fraction >= spec.min_tissue - ROUNDING
    if not keep.any():
        asked = f"{len(x)} tiles" if len(x) else f"the {spec.placement} places tried"
        raise NoTissueError(
            f"none of {asked} holds enough tissue: at most {best:.3f}, wanted "
            f"{spec.min_tissue:g}; lower min_tissue, or look at what the tissue finder found",
            slide.path,
        )
    tissue_column = fraction.astype(np.float32)
    grid = TileGrid(spec, GridSource.of(slide), x, y, tissue_column, columns)
    # A grid is in order already; heatmaps are stitched from the top to the bottom.
    order = np.flatnonzero(keep)
    return grid.select(order[np.lexsort((x[order], y[order]))])


def _grid(slide: Slide, spec: TileSpec) -> Places:
    return (jittered_places if spec.placement == "jittered" else grid_places)(slide, spec)


def _tissue(
    slide: Slide, spec: TileSpec, tissue: SlideMap | Survey | None
) -> tuple[TileSpec, SlideMap]:
    """The map of tissue, and the spec that says where it is from."""
    if isinstance(tissue, SlideMap):
        values = np.nan_to_num(tissue.values)
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"a map of tissue has fractions from 0 to 1, got {values.min():g} to"
                f" {values.max():g}; compare or divide it first, as a mask of 0 and 255 by 255"
            )
        return spec.with_given_tissue(), tissue
    if tissue is None:
        if spec.tissue == GIVEN:
            raise ValueError("tissue given needs a map of tissue; pass one or name a finder")
        tissue = survey(slide, spec.tissue, spec.exclude)
    if tissue.finder != spec.tissue or set(tissue.artefacts) != set(spec.exclude):
        raise ValueError(
            f"the survey is by {tissue.finder} without {', '.join(tissue.artefacts) or 'anything'},"
            f" wanted {spec.tissue} without {', '.join(spec.exclude) or 'anything'}"
        )
    return spec, tissue.tissue
