"""Regions that people drew on slides, whatever the program they drew them with."""

from pathology.annotations.annotation import Annotation, Annotations
from pathology.annotations.classes import Classes, read_classes
from pathology.annotations.export import write_geojson, write_tiles
from pathology.annotations.polygons import PolygonRegions
from pathology.annotations.rasters import RasterRegions
from pathology.annotations.read import read_annotations, read_regions
from pathology.annotations.regions import Regions

__all__ = [
    "Annotation",
    "Annotations",
    "Classes",
    "PolygonRegions",
    "RasterRegions",
    "Regions",
    "read_annotations",
    "read_classes",
    "read_regions",
    "write_geojson",
    "write_tiles",
]
