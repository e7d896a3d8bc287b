"""Where the tissue is on a slide, and the grid of tiles that covers it."""

from pathology.tiling.grid import GridSource, Tile, TileGrid
from pathology.tiling.label import label_tiles
from pathology.tiling.spec import TileSpec
from pathology.tiling.tile import tile_slide
from pathology.tissue import OtsuTissue, TissueFinder

__all__ = [
    "GridSource",
    "OtsuTissue",
    "Tile",
    "TileGrid",
    "TileSpec",
    "TissueFinder",
    "label_tiles",
    "tile_slide",
]
