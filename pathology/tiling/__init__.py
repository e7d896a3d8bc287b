"""The tiles of a slide: which there are, by what specification, and as a table."""

from pathology.tiling.grid import GridSource, Tile, TileGrid
from pathology.tiling.label import label_tiles
from pathology.tiling.spec import TileSpec
from pathology.tiling.tile import tile_slide

__all__ = ["GridSource", "Tile", "TileGrid", "TileSpec", "label_tiles", "tile_slide"]
