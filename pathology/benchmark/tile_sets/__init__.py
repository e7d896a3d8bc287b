"""Labelled tiles whose evidence is known, to train on and to measure maps with."""

from pathology.benchmark.tile_sets.making import KINDS, make_maker, make_tile_set
from pathology.benchmark.tile_sets.tile_set import MASK_BITS, Examples, TileSet, load_tile_set

__all__ = [
    "KINDS",
    "MASK_BITS",
    "Examples",
    "TileSet",
    "load_tile_set",
    "make_maker",
    "make_tile_set",
]
