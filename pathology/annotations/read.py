"""Reading annotations of any format."""

import codecs
import gzip
import zlib
from io import BytesIO
from pathlib import Path

from pathology.annotations.annotation import Annotations
from pathology.annotations.classes import Classes, Origin
from pathology.annotations.geojson import parse_geojson, read_geojson
from pathology.annotations.masks import open_mask
from pathology.annotations.polygons import PolygonRegions
from pathology.annotations.rasters import RasterRegions
from pathology.annotations.regions import Regions, Source
from pathology.annotations.xml import parse_xml, read_xml
from pathology.errors import AnnotationError

GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz")
XML = (".xml",)
GZIP = b"\x1f\x8b"
MOST_BYTES = 2**28  # of what is unpacked, whoever sent it
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # ImageScope writes it; JSON is UTF-8
MASKS = (".tif", ".tiff", ".png")


def read_annotations(path: str | Path) -> Annotations:
    """The areas drawn in a file of QuPath (GeoJSON), ASAP or ImageScope (XML), as in the file.

    Raises:
        AnnotationError: another kind of file, one that cannot be read, or an area that cannot be
            used; see :mod:`pathology.annotations.annotation`.
    """
    path = Path(path)
    if is_polygons(path):
        return read_geojson(path) if path.name.lower().endswith(GEOJSON) else read_xml(path)
    raise AnnotationError(
        f"{path}: not a file of annotations; known are {', '.join((*GEOJSON, *XML, *MASKS))}"
    )


def annotations_of(data: bytes, name: str) -> Annotations:
    """The areas drawn in the content of a file, whose format is told by how it begins.

    Args:
        data: GeoJSON, also compressed, or XML of ASAP or ImageScope.
        name: what messages call the file.

    Raises:
        AnnotationError: as :func:`read_annotations` says, or more than :data:`MOST_BYTES` unpacked.
    """
    if data.startswith(GZIP):
        data = _unpacked(data, name)
    is_xml = data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<" or data.startswith(UTF_16)
    path = Path(name)
    return parse_xml(path, BytesIO(data)) if is_xml else parse_geojson(path, data)


def _unpacked(data: bytes, name: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AnnotationError(f"{name}: cannot be read: {error}") from error
    if len(content) > MOST_BYTES:
        raise AnnotationError(f"{name}: more than {MOST_BYTES // 2**20} MiB when unpacked")
    return content


def read_regions(path: str | Path, source: Source, classes: Classes) -> Regions:
    """The classes of a slide, from whatever was drawn or painted on it.

    Args:
        path: polygons (QuPath's GeoJSON, XML of ASAP or ImageScope), or a mask image over the whole
            slide (TIFF, PNG).
        source: the slide; the open slide itself where polygons count from its bounds.
        classes: which annotations make which class, see :func:`read_classes`.

    Raises:
        AnnotationError: the file cannot be used, an annotation lies outside of the slide, or one is
            in no class.
        SlideOpenError: a mask image cannot be read.
        TypeError: polygons count from the slide's bounds, and ``source`` does not know them.
    """
    path = Path(path)
    if is_mask(path):
        return RasterRegions(open_mask(path, source, classes.has_colours), classes)
    annotations = read_annotations(path)
    offset = origin_of(source, classes.origin, annotations)
    return PolygonRegions(annotations.placed(source, offset), classes)


def origin_of(
    source: Source, origin: Origin, annotations: Annotations | None = None
) -> tuple[float, float]:
    """Level-0 location from which coordinates of a file count, see :class:`Classes`.

    Args:
        source: the slide.
        origin: what is known of the file.
        annotations: the file, for ``"auto"``; GeoJSON of QuPath when omitted.

    Raises:
        TypeError: it is the corner of the slide's bounds, and ``source`` does not know them.
    """
    is_geojson = annotations is None or annotations.format == "geojson"
    if origin == "slide" or (origin == "auto" and not is_geojson):
        return 0, 0
    bounds = getattr(source, "bounds", None)
    if bounds is None:
        raise TypeError("polygons that count from a slide's bounds need the open slide as source")
    return bounds.x, bounds.y


def is_mask(path: Path) -> bool:
    """Whether a file of this name is a mask image."""
    return path.name.lower().endswith(MASKS)


def is_polygons(path: Path) -> bool:
    """Whether a file of this name holds polygons."""
    return path.name.lower().endswith((*GEOJSON, *XML))
