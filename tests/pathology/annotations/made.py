"""Annotations made for tests."""

from pathlib import Path

import numpy as np
import shapely

from pathology.annotations import Annotation, Annotations
from pathology.geometry import Box, Mpp, Size


class Source:
    """A slide of which only size, scale and, where given, bounds are known."""

    def __init__(self, width=1000, height=800, mpp=0.5, bounds=None):
        self.slide_id = "case"
        self.size, self.mpp = Size(width, height), Mpp(mpp, mpp)
        if bounds is not None:
            self.bounds = Box(*bounds)


def blob(x: float, y: float, radius: float, points: int = 40, seed: int = 0) -> shapely.Polygon:
    """A star-shaped polygon of known roughness."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    length = radius * rng.uniform(0.6, 1, points)
    return shapely.Polygon(np.c_[x + length * np.cos(angle), y + length * np.sin(angle)])


def annotations(**areas: shapely.Geometry | list) -> Annotations:
    """Areas by name; a list is several of one name."""
    drawn = [
        Annotation((name,), one, f"feature {name}")
        for name, some in areas.items()
        for one in (some if isinstance(some, list) else [some])
    ]
    return Annotations(Path("made.geojson"), "geojson", tuple(drawn))


def share(area: shapely.Geometry, boxes: np.ndarray) -> np.ndarray:
    """The fraction of each box in an area, box by box."""
    return np.array(
        [area.intersection(shapely.box(x, y, x + w, y + h)).area / (w * h) for x, y, w, h in boxes]
    )
