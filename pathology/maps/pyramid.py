"""A slide map as an OME-TIFF pyramid of float32, in a form QuPath, Fiji and tifffile all read.

Reduced levels are SubIFDs of the one plane, Deflate without predictor (Bio-Formats, and so QuPath,
knows no floating-point predictor). What a reduced pixel holds depends on the map::

    sum    s' = sum of 2 x 2         for additive maps: every level has the same total
    mean   N' = sum of 2 x 2 N,  W' = sum of 2 x 2 W,  value N'/W'   for densities; N = value * W

NaN is "nothing measured": it adds nothing, and a reduced pixel is NaN only where all four are.
Ratios are never averaged.

A sum pyramid grows about fourfold per level, so under one fixed colour range it looks stronger the
further one zooms out; to look at, write the density with ``levels="mean"``.
"""

import json
import math
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import PathologyError
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file

Levels = Literal["sum", "mean"]

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
NAMESPACE = "pathology/slide-map"
STRIP_ROWS = 128
CLASSIC_TIFF_BYTES = 4 * 10**9
"""Above this raw size offsets may not fit 32 bits, and the file is written as BigTIFF."""


def write_ome_tiff(
    slide_map: SlideMap,
    path: str | Path,
    levels: Levels = "sum",
    metadata: Mapping[str, Any] | None = None,
    *,
    weights: NDArray[Any] | None = None,
    tile_px: int = 512,
) -> Path:
    """Write a slide map as a tiled float32 OME-TIFF pyramid, a strip of rows at a time.

    The file appears under its name when it is complete. Reduced levels are prepared in a temporary
    folder beside it.

    Args:
        slide_map: the map; its values may lie on disk.
        path: file to write, by custom ``*.ome.tiff``; an existing one is replaced.
        levels: ``"sum"`` for additive maps, ``"mean"`` for densities and other intensive ones.
        metadata: anything JSON holds (ledger, slide, stamp); kept as a comment annotation in the
            OME-XML, next to the map's own placement. NaN and infinity are refused.
        weights: ``(height, width)`` W for ``levels="mean"``; every covered pixel weighs the same
            when omitted.
        tile_px: side of a stored tile, a multiple of 16.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
        ValueError: unknown ``levels``, weights of another shape or with sums, a tile side that is
            not a positive multiple of 16, or metadata that JSON cannot hold.
    """
    path = Path(path)
    if levels not in ("sum", "mean"):
        raise ValueError(f'levels must be "sum" or "mean", got {levels!r}')
    _check_weights(slide_map, levels, weights)
    if tile_px <= 0 or tile_px % 16:
        raise ValueError(f"tile_px must be a positive multiple of 16, got {tile_px}")
    description = _ome_xml(slide_map, levels, metadata or {})
    with (
        complete_file(path) as draft,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".pyramid-") as scratch,
    ):
        base = Level(slide_map.values, weights, levels)
        pyramid = _reduce(base, Path(scratch), tile_px)
        _write(pyramid, draft, slide_map.mpp, description, tile_px)
    return path


def read_ome_tiff(path: str | Path, level: int = 0) -> tuple[SlideMap, dict[str, Any]]:
    """Read what :func:`write_ome_tiff` wrote.

    Args:
        path: the file.
        level: pyramid level, 0 the finest.

    Returns:
        The map in memory and the metadata given at writing.

    Raises:
        PathologyError: not a readable OME-TIFF, or not one of ours.
        ValueError: no such level.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            own = _annotation(tiff.ome_metadata or "")
            pages = tiff.series[0].levels if own is not None else []
            if own is not None and not 0 <= level < len(pages):
                raise ValueError(f"{path} has levels 0 to {len(pages) - 1}, got {level}")
            values = pages[level].asarray(maxworkers=1) if own is not None else np.zeros((1, 1))
    except (OSError, tifffile.TiffFileError, ElementTree.ParseError) as error:
        raise PathologyError(f"{path}: cannot read it as an OME-TIFF: {error}") from error
    if own is None:
        raise PathologyError(f"{path}: an OME-TIFF, but without this library's slide map entry")
    placed = own["slide_map"]
    x, y, width, height = placed["box"]
    full_height, full_width = placed["shape"]
    # Odd levels reach one finer pixel further; the pixel size is what stays constant.
    scale_x, scale_y = width / full_width * 2**level, height / full_height * 2**level
    box = Box(x, y, values.shape[1] * scale_x, values.shape[0] * scale_y)
    metadata = cast("dict[str, Any]", own["metadata"])
    return SlideMap(values, box, Mpp(*placed["slide_mpp"]), placed["unit"]), metadata


def shrink(
    slide_map: SlideMap,
    max_side: int,
    levels: Levels = "sum",
    weights: NDArray[Any] | None = None,
) -> SlideMap:
    """The first reduced level with no side above ``max_side``, in memory; for pictures.

    Args:
        slide_map: the map; its values may lie on disk, and are read a strip at a time.
        max_side: largest width and height in pixels.
        levels: as for :func:`write_ome_tiff`.
        weights: likewise.

    Returns:
        A map of float64 at ``2**k`` times the pixel size, reaching over the map's right and bottom
        edges by less than one such pixel; the map itself where it is small enough.

    Raises:
        ValueError: ``max_side`` below 1, weights of another shape or with sums.
    """
    if max_side < 1:
        raise ValueError(f"max_side must be at least 1, got {max_side}")
    _check_weights(slide_map, levels, weights)
    halvings = 0
    while -(-max(slide_map.values.shape) // 2**halvings) > max_side:
        halvings += 1
    if not halvings:
        return slide_map
    base = Level(slide_map.values, weights, levels)
    # Strips that begin at a multiple of 2**halvings can be reduced to the end on their own.
    step = 2**halvings * max(1, STRIP_ROWS // 2**halvings)
    strips = [base.reduced(top, bottom, halvings) for top, bottom in base.strips(step)]
    values = np.concatenate(strips)
    down_x, down_y = (side * 2**halvings for side in slide_map.downsample)
    height, width = values.shape
    box = Box(slide_map.box.x, slide_map.box.y, width * down_x, height * down_y)
    return SlideMap(values, box, slide_map.slide_mpp, slide_map.unit)


def _check_weights(slide_map: SlideMap, levels: Levels, weights: NDArray[Any] | None) -> None:
    if weights is not None and (levels == "sum" or weights.shape != slide_map.values.shape):
        raise ValueError(
            f'weights go with levels="mean" and the map\'s shape {slide_map.values.shape}, got '
            f"levels={levels!r} and {weights.shape}"
        )


@dataclass(frozen=True)
class Level:
    """One level as a numerator N and a weight W; the value is N for sums, N/W for means.

    Args:
        total: ``(height, width)``, N, or the values themselves at the base.
        weight: ``(height, width)``, W; at the base ``None`` for 1 wherever there is a value.
        levels: sum or mean.
        is_ratio: whether ``total`` holds the finished values, as the base does.
    """

    total: NDArray[Any]
    weight: NDArray[Any] | None
    levels: Levels
    is_ratio: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        height, width = self.total.shape
        return height, width

    def strips(self, rows: int) -> Iterator[tuple[int, int]]:
        """Row ranges from top to bottom."""
        height = self.shape[0]
        for top in range(0, height, rows):
            yield top, min(top + rows, height)

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        """The values of some rows, NaN where uncovered."""
        total = _read(self.total, top, bottom)
        if self.is_ratio or self.weight is None:
            return total
        weight = _read(self.weight, top, bottom)
        values = np.full(total.shape, np.nan)
        if self.levels == "sum":
            values[weight > 0] = total[weight > 0]
        else:
            np.divide(total, weight, out=values, where=weight > 0)
        return values

    def reduced(self, top: int, bottom: int, halvings: int) -> NDArray[np.float64]:
        """The values that some rows have ``halvings >= 1`` levels further down."""
        total, weight = self.halved(top, bottom)
        for _ in range(halvings - 1):
            total, weight = _sum_2x2(total), _sum_2x2(weight)
        level = Level(total, weight, self.levels, is_ratio=False)
        return np.asarray(level.rows(0, level.shape[0]), dtype=np.float64)

    def halved(self, top: int, bottom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """N and W of the next level's rows ``top // 2 .. ceil(bottom / 2)``; ``top`` is even.

        For sums W only says whether a pixel is covered.
        """
        total = _read(self.total, top, bottom).astype(np.float64)
        if self.weight is None:
            weight = np.isfinite(total).astype(np.float64)
        else:
            weight = np.nan_to_num(_read(self.weight, top, bottom).astype(np.float64))
        if self.is_ratio:
            weight[~np.isfinite(total)] = 0.0
            total = np.nan_to_num(total, nan=0.0, posinf=0.0, neginf=0.0)
            if self.levels == "mean":
                total *= weight
        return _sum_2x2(total), _sum_2x2(weight)


def _sum_2x2(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of 2 x 2 pixels; an odd edge is met by zeros."""
    height, width = values.shape
    if height % 2 or width % 2:
        values = np.pad(values, ((0, height % 2), (0, width % 2)))
    pairs: NDArray[np.float64] = values[0::2] + values[1::2]
    sums: NDArray[np.float64] = pairs[:, 0::2] + pairs[:, 1::2]
    return sums


def _read(values: NDArray[Any], top: int, bottom: int) -> NDArray[Any]:
    """Some rows; of a memory-mapped file by a plain read, whose pages do not count as ours."""
    if (
        isinstance(values, np.memmap)
        and isinstance(values.base, mmap.mmap)
        and values.filename is not None
        and values.flags.c_contiguous
    ):
        width = values.shape[1]
        offset = values.offset + top * width * values.itemsize
        count = (bottom - top) * width
        return np.fromfile(values.filename, values.dtype, count, offset=offset).reshape(-1, width)
    return values[top:bottom]


def _reduce(base: Level, scratch: Path, tile_px: int) -> list[Level]:
    """All levels down to one tile, the reduced ones on disk as raw float64."""
    pyramid = [base]
    while max(pyramid[-1].shape) > tile_px:
        finer, k = pyramid[-1], len(pyramid)
        height, width = (-(-side // 2) for side in finer.shape)
        names = scratch / f"{k}.total", scratch / f"{k}.weight"
        with names[0].open("wb") as totals, names[1].open("wb") as weights:
            for top, bottom in finer.strips(STRIP_ROWS):
                total, weight = finer.halved(top, bottom)
                totals.write(total.data)
                weights.write(weight.data)
        total_map, weight_map = (
            np.memmap(name, np.float64, mode="r", shape=(height, width)) for name in names
        )
        pyramid.append(Level(total_map, weight_map, base.levels, is_ratio=False))
    return pyramid


def _write(pyramid: list[Level], part: Path, mpp: Mpp, description: bytes, tile_px: int) -> None:
    raw = sum(math.prod(-(-side // tile_px) * tile_px for side in lv.shape) * 4 for lv in pyramid)
    with tifffile.TiffWriter(part, bigtiff=raw > CLASSIC_TIFF_BYTES) as tiff:
        for k, level in enumerate(pyramid):
            tiff.write(
                _tiles(level, tile_px),
                shape=level.shape,
                dtype=np.float32,
                tile=(tile_px, tile_px),
                photometric="minisblack",
                compression="adobe_deflate",
                predictor=False,
                resolution=(1e4 / (mpp.x * 2**k), 1e4 / (mpp.y * 2**k)),
                resolutionunit="CENTIMETER",
                # The first write announces the SubIFDs, the following fill them.
                subifds=len(pyramid) - 1 if k == 0 else None,
                subfiletype=1 if k else 0,
                description=description if k == 0 else None,
                metadata=None,
                software=False,
                # Threads would buffer a queue of tiles each.
                maxworkers=1,
            )


def _tiles(level: Level, side: int) -> Iterator[NDArray[np.float32]]:
    """Tiles in reading order, ``side x side`` each; what lies past the raster is NaN."""
    width = level.shape[1]
    for top, bottom in level.strips(side):
        strip = level.rows(top, bottom).astype(np.float32)
        for left in range(0, width, side):
            block = strip[:, left : left + side]
            tile = np.full((side, side), np.nan, np.float32)
            tile[: block.shape[0], : block.shape[1]] = block
            yield tile


def _ome_xml(slide_map: SlideMap, levels: Levels, metadata: Mapping[str, Any]) -> bytes:
    """The OME-XML of one float plane, with placement and metadata as a JSON comment."""
    height, width = slide_map.values.shape
    box = slide_map.box
    own = {
        "slide_map": {
            "box": [box.x, box.y, box.width, box.height],
            "slide_mpp": list(slide_map.slide_mpp),
            "shape": [height, width],
            "unit": slide_map.unit,
            "levels": levels,
        },
        "metadata": dict(metadata),
    }
    try:
        comment = json.dumps(own, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be JSON with finite numbers: {error}") from error
    name = f"map [{slide_map.unit}]" if slide_map.unit else "map"
    ome = ElementTree.Element("OME", xmlns=OME, Creator="bcos-pathology")
    image = ElementTree.SubElement(ome, "Image", ID="Image:0", Name=name)
    pixels = ElementTree.SubElement(
        image,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",
        Type="float",
        SizeX=str(width),
        SizeY=str(height),
        SizeC="1",
        SizeZ="1",
        SizeT="1",
        PhysicalSizeX=repr(float(slide_map.mpp.x)),
        PhysicalSizeXUnit="µm",
        PhysicalSizeY=repr(float(slide_map.mpp.y)),
        PhysicalSizeYUnit="µm",
    )
    ElementTree.SubElement(pixels, "Channel", ID="Channel:0:0", Name=name, SamplesPerPixel="1")
    ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount="1")
    ElementTree.SubElement(image, "AnnotationRef", ID="Annotation:0")
    annotations = ElementTree.SubElement(ome, "StructuredAnnotations")
    annotation = ElementTree.SubElement(
        annotations, "CommentAnnotation", ID="Annotation:0", Namespace=NAMESPACE
    )
    ElementTree.SubElement(annotation, "Value").text = comment
    xml: bytes = ElementTree.tostring(ome, encoding="UTF-8", xml_declaration=True)
    return xml


def _annotation(xml: str) -> dict[str, Any] | None:
    """The JSON comment of :func:`_ome_xml`; ``None`` where the file has none."""
    if not xml:
        return None
    root = ElementTree.fromstring(xml)
    for annotation in root.iter(f"{{{OME}}}CommentAnnotation"):
        if annotation.get("Namespace") == NAMESPACE:
            return cast("dict[str, Any]", json.loads(annotation.findtext(f"{{{OME}}}Value", "")))
    return None
