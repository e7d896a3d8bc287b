"""A slide map as an OME-TIFF pyramid of float32, in a form QuPath, Fiji and tifffile all read.

Reduced levels are SubIFDs of the one plane, Deflate without predictor (Bio-Formats, and so QuPath,
knows no floating-point predictor); see :mod:`pathology.maps.pyramid` for what they hold. OpenSlide
finds neither the levels nor the numbers in such a file: heatmaps do not go through it.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import PathologyError
from pathology.geometry import Mpp
from pathology.maps.description import describe, described, sentence
from pathology.maps.pyramid import Level, Levels, check_levels, reduced_levels
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
NAMESPACE = "pathology/slide-map"
CLASSIC_TIFF_BYTES = 4 * 10**9
"""Above this raw size offsets may not fit 32 bits, and the file is written as BigTIFF."""

# What tifffile, its codecs (RuntimeError) and we ourselves raise of bytes that are not as written.
DAMAGES = (
    OSError, RuntimeError, ValueError, LookupError, TypeError,
    tifffile.TiffFileError, ElementTree.ParseError,
)  # fmt: skip


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
    check_levels(slide_map, levels, weights)
    if tile_px <= 0 or tile_px % 16:
        raise ValueError(f"tile_px must be a positive multiple of 16, got {tile_px}")
    description = _ome_xml(slide_map, levels, metadata or {})
    with (
        complete_file(path) as draft,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".pyramid-") as scratch,
    ):
        base = Level(slide_map.values, weights, levels)
        pyramid = reduced_levels(base, Path(scratch), tile_px)
        _write(pyramid, draft, slide_map.mpp, description, tile_px)
    return path


def read_ome_tiff(
    path: str | Path, level: int = 0, *, max_side: int | None = None
) -> tuple[SlideMap, dict[str, Any]]:
    """Read what :func:`write_ome_tiff` wrote.

    Args:
        path: the file.
        level: pyramid level, 0 the finest.
        max_side: rather the finest level from ``level`` on with no side above this, the last where
            all have; the others are not read.

    Returns:
        The map in memory and the metadata given at writing.

    Raises:
        PathologyError: not a readable OME-TIFF, or not one of ours.
        ValueError: no such level.
    """
    found = None
    try:
        with tifffile.TiffFile(path) as tiff:
            record = _record(tiff.ome_metadata)
            pages = tiff.series[0].levels if record else []
            if record and 0 <= level < len(pages):
                while max_side and max(pages[level].shape) > max_side and level < len(pages) - 1:
                    level += 1
                values = pages[level].asarray(maxworkers=1)
                found = described(values, record, level)
    except DAMAGES as error:
        raise PathologyError(f"{path}: cannot read it as an OME-TIFF: {error}") from error
    if record is None:
        raise PathologyError(
            f"{path}: a TIFF, but without this library's slide map entry in OME-XML"
        )
    if found is None:
        raise ValueError(f"{path} has levels 0 to {len(pages) - 1}, got {level}")
    return found


def _write(pyramid: list[Level], part: Path, mpp: Mpp, description: bytes, tile_px: int) -> None:
    raw = sum(math.prod(-(-side // tile_px) * tile_px for side in lv.shape) * 4 for lv in pyramid)
    with tifffile.TiffWriter(part, bigtiff=raw > CLASSIC_TIFF_BYTES) as tiff:
        for k, level in enumerate(pyramid):
            tiff.write(
                level.tiles(tile_px),
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


def _ome_xml(slide_map: SlideMap, levels: Levels, metadata: Mapping[str, Any]) -> bytes:
    """The OME-XML of one float plane, with placement and metadata as a JSON comment."""
    height, width = slide_map.values.shape
    mpp, box = slide_map.mpp, slide_map.box
    comment = json.dumps(describe(slide_map, levels, metadata))
    name = f"map [{slide_map.unit}]" if slide_map.unit else "map"
    ome = ElementTree.Element("OME", xmlns=OME, Creator="bcos-pathology")
    image = ElementTree.SubElement(ome, "Image", ID="Image:0", Name=name)
    ElementTree.SubElement(image, "Description").text = sentence(slide_map, levels)
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
        PhysicalSizeX=repr(float(mpp.x)),
        PhysicalSizeXUnit="µm",
        PhysicalSizeY=repr(float(mpp.y)),
        PhysicalSizeYUnit="µm",
    )
    ElementTree.SubElement(pixels, "Channel", ID="Channel:0:0", Name=name, SamplesPerPixel="1")
    ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount="1")
    # OME's own words for where an image lies; the origin is the slide's top left corner.
    ElementTree.SubElement(
        pixels,
        "Plane",
        {f"The{axis}": "0" for axis in "ZCT"},
        PositionX=repr(float(box.x * slide_map.slide_mpp.x)),
        PositionXUnit="µm",
        PositionY=repr(float(box.y * slide_map.slide_mpp.y)),
        PositionYUnit="µm",
    )
    ElementTree.SubElement(image, "AnnotationRef", ID="Annotation:0")
    annotations = ElementTree.SubElement(ome, "StructuredAnnotations")
    annotation = ElementTree.SubElement(
        annotations, "CommentAnnotation", ID="Annotation:0", Namespace=NAMESPACE
    )
    ElementTree.SubElement(annotation, "Value").text = comment
    xml: bytes = ElementTree.tostring(ome, encoding="UTF-8", xml_declaration=True)
    return xml


def placement(xml: str | None) -> dict[str, Any] | None:
    """Where the map of a file lies, ``slide_map`` of :func:`~.description.describe`.

    Args:
        xml: the file's OME-XML.

    Returns:
        None where the file is not one of ours.
    """
    record = _record(xml)
    return None if record is None else cast("dict[str, Any]", record["slide_map"])


def _record(xml: str | None) -> dict[str, Any] | None:
    """The JSON comment of :func:`_ome_xml`; ``None`` where the file has none."""
    if not xml:
        return None
    root = ElementTree.fromstring(xml)
    for annotation in root.iter(f"{{{OME}}}CommentAnnotation"):
        if annotation.get("Namespace") == NAMESPACE:
            return cast("dict[str, Any]", json.loads(annotation.findtext(f"{{{OME}}}Value", "")))
    return None
