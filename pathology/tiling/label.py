"""Labels of tiles from an annotation that was painted over the slide."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pathology.errors import ManifestError, SlideOpenError
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.slides.levels import finest_needed, level_scale
from pathology.tiling.grid import GridSource, TileGrid

ANNOTATION_MPP = 4.0  # annotations are drawn by hand; finer planes cost time and add nothing
INDEX_TYPES = (np.bool_, np.uint8, np.uint16, np.uint32)
BAND_PX = 2**22  # pixels of an annotation held at once


def label_tiles(
    grid: TileGrid,
    annotation: SlideMap | str | Path,
    classes: Mapping[str, int],
    min_fraction: float = 0.75,
    min_annotated: float = 0.5,
) -> TileGrid:
    """Give every tile the class that covers it, as a column ``label``.

    A pixel is annotated when its value is one of ``classes`` or is not zero. A tile gets the name
    of the class with the largest area when that is at least ``min_fraction`` of the tile's
    *annotated* area, and the annotated area is at least ``min_annotated`` of the tile; else ``""``.
    The first, because glass between two lobes of a tumour is usually not annotated as anything;
    the second, so that a corner of an annotation does not speak for a whole tile. Areas are exact
    for the plane that is read. Of two classes with equal areas the first of ``classes`` wins.

    Args:
        grid: the tiles.
        annotation: class indices placed on the slide; or a single-channel TIFF that covers the
            whole slide, of any size and with or without further planes, read band by band at
            about 4 um per pixel.
        classes: index in the annotation by class name.
        min_fraction: of the annotated area of a tile, 0 to 1.
        min_annotated: of the area of a tile, 0 to 1.

    Raises:
        ManifestError: the annotation has more than one channel, or another shape than the slide.
        SlideOpenError: the annotation cannot be read.
        ValueError: no ``classes``, an empty or repeated name or index, a fraction outside [0, 1].
    """
    _check_classes(classes)
    for name, value in (("min_fraction", min_fraction), ("min_annotated", min_annotated)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    raster: _Raster
    if isinstance(annotation, SlideMap):
        raster = _MapRaster(annotation)
    else:
        raster = _TiffRaster(Path(annotation), grid.source)
    names = np.array([*classes, ""])
    label = np.full(len(grid), "", names.dtype)
    boxes = grid.boxes()
    for which, band in _bands(raster, boxes):
        areas, annotated = _areas(band, boxes[which], list(classes.values()))
        best = areas.argmax(axis=0)
        # Rounding of sums over areas must not decide a tile that lies on the limit.
        is_enough = areas.max(axis=0) >= min_fraction * annotated - 1e-6
        is_enough &= (annotated >= min_annotated - 1e-6) & (areas.max(axis=0) > 0)
        label[which] = names[np.where(is_enough, best, len(classes))]
    return grid.with_columns(label=label)


class _Raster(Protocol):
    """Class indices on a slide, of which some rows can be had."""

    box: Box
    shape: tuple[int, int]

    def rows(self, top: int, bottom: int) -> NDArray[Any]: ...


class _MapRaster:
    def __init__(self, annotation: SlideMap) -> None:
        self.box = annotation.box
        self.shape = annotation.values.shape[0], annotation.values.shape[1]
        self._values = annotation.values

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        return self._values[top:bottom]


class _TiffRaster:
    """A single-channel TIFF stretched over the slide."""

    def __init__(self, path: Path, source: GridSource) -> None:
        from pathology.slides.tiff_page import open_planes

        try:
            planes, _ = open_planes(path)
        except SlideOpenError as error:
            raise SlideOpenError(f"annotation of {source.slide_id}: {error}") from error
        first = planes[0]
        if first.page.samplesperpixel != 1 or first.page.dtype not in INDEX_TYPES:
            got = f"{first.page.samplesperpixel} x {first.page.dtype}"
            raise ManifestError(f"{path}: an annotation needs one channel of indices, got {got}")
        width, height = source.size
        # Sides are rounded to whole pixels of the annotation, in some software to whole tiles.
        if abs(first.height - first.width * height / width) > max(2, 0.02 * first.height):
            raise ManifestError(
                f"{path}: an annotation of {first.width} x {first.height} px does not have the "
                f"shape of slide {source.slide_id}, {width:g} x {height:g}"
            )
        scales = [level_scale(source.size, p.width, p.height, False) for p in planes]
        level = finest_needed(scales, ANNOTATION_MPP / source.mpp.x, ANNOTATION_MPP / source.mpp.y)
        self._plane = planes[level]
        self.shape = self._plane.height, self._plane.width
        self.box = Box(0, 0, width, height)

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        return self._plane.read(0, top, self._plane.width, bottom - top)[..., 0]


def _bands(
    raster: _Raster, boxes: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.intp], SlideMap]]:
    """Indices of tiles and the rows of the annotation under them, part by part of the slide."""
    height, width = raster.shape
    down = raster.box.height / height
    tile_rows = math.ceil(boxes[0, 3] / down) + 1 if len(boxes) else 1
    most = max(BAND_PX // width, tile_rows) - tile_rows + 1
    first_row = np.floor((boxes[:, 1] - raster.box.y) / down).astype(int)
    for band in np.unique(first_row // most):
        which = np.flatnonzero(first_row // most == band)
        top = min(max(int(band) * most, 0), height - 1)
        bottom = min(max(int(band + 1) * most + tile_rows, top + 1), height)
        box = Box(raster.box.x, raster.box.y + top * down, raster.box.width, (bottom - top) * down)
        yield which, SlideMap(raster.rows(top, bottom), box, Mpp(1, 1))


def _areas(
    band: SlideMap, boxes: NDArray[np.float64], indices: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fraction of every tile covered by each class, ``(classes, tiles)``, and by any annotation."""

    def share(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        return SlideMap(mask, band.box, band.slide_mpp).box_means(boxes)

    # A map of floats marks what was not looked at by NaN.
    is_annotated = np.isin(band.values, indices) | (np.nan_to_num(band.values) != 0)
    return np.stack([share(band.values == index) for index in indices]), share(is_annotated)


def _check_classes(classes: Mapping[str, int]) -> None:
    if not classes or "" in classes:
        raise ValueError(f"classes must have names, got {dict(classes)}")
    if len(set(classes.values())) != len(classes):
        raise ValueError(f"classes must have an index each, got {dict(classes)}")
