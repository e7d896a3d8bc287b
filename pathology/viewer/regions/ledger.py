"""What an explanation holds of a region: its sum, its parts, and the slide's ledger split by it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathology.geometry import Box
from pathology.viewer.evidence.evidence import Evidence
from pathology.viewer.evidence.gallery import tiles_inside
from pathology.viewer.regions.sums import RegionSum, region_sum


@dataclass(frozen=True)
class RegionLedger:
    """A slide's score split into what lies in a region and what does not.

    Args:
        parts: bias, constants, the map inside and outside, and what is cut off, by name, in logits.
            What is outside is the stored map's sum without what is inside.
        score: what the model said.
        sums: of the map inside.
        area_mm2: of the region.
        map_sum: of the whole map.
        tiles: tiles whose centre lies inside; None where tiles are unknown.
        undivided: tiles that reach into the region and were not taken apart: what they add is
            spread evenly over them, so where the outline cuts one, the sum says no more than that.
    """

    parts: list[tuple[str, float]]
    score: float
    sums: RegionSum
    area_mm2: float
    map_sum: float
    tiles: int | None
    undivided: int

    @property
    def total(self) -> float:
        """What the parts add up to."""
        numbers = [number for _, number in self.parts]
        return math.fsum(numbers) if all(map(math.isfinite, numbers)) else math.nan

    @property
    def gap(self) -> float:
        """What the score and the parts differ by."""
        return abs(self.score - self.total)

    @property
    def density(self) -> float:
        """Logits per mm2 of the region."""
        return self.sums.sum / self.area_mm2

    @property
    def share(self) -> float:
        """Of the map's sum; NaN where that is 0."""
        return self.sums.sum / self.map_sum if self.map_sum else math.nan


def region_ledger(evidence: Evidence, geometry: Any, slide: Box) -> RegionLedger:
    """The ledger of a region.

    Args:
        evidence: an explanation, or the difference of two.
        geometry: valid, in level-0 pixels, on the slide.
        slide: the whole slide.

    Raises:
        AnnotationError: the outline is too long to be summed.
        PathologyError: the map cannot be read.
    """
    ledger, heatmap = evidence.ledger, evidence.maps["heatmap"]
    sums = region_sum(heatmap, geometry, slide)
    mpp = heatmap.slide_mpp
    tiles = evidence.tiles
    return RegionLedger(
        parts=[
            ("bias", ledger.bias),
            *ledger.constants.items(),
            ("inside", sums.sum),
            ("outside", ledger.map_sum - sums.sum),
            ("cut off", ledger.cut_off),
        ],
        score=ledger.score,
        sums=sums,
        area_mm2=geometry.area * float(mpp.x * mpp.y) * 1e-6,
        map_sum=ledger.map_sum,
        tiles=None if tiles is None else len(tiles_inside(tiles, geometry)),
        undivided=_reaching_into(evidence.undivided, geometry),
    )


def _reaching_into(boxes: Any, geometry: Any) -> int:
    """How many boxes share area with a geometry."""
    import shapely

    x, y, width, height = boxes.T
    left, top, right, bottom = geometry.bounds
    near = (x < right) & (y < bottom) & (x + width > left) & (y + height > top)
    x, y, width, height = boxes[near].T
    shapely.prepare(geometry)
    meets = shapely.intersects(geometry, shapely.box(x, y, x + width, y + height))
    return int(np.count_nonzero(meets))
