"""Something to ask about, in float64 and in memory, and what it has to answer, by loops."""

import tempfile
from functools import cache

import numpy as np
import torch

from bcos_vit.explain import explain
from bcos_vit.models import BcosDenseNet
from bcos_vit.transforms import encode
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.scorers.pooling import MeanPooling
from pathology.explain.slide import explain_slide
from pathology.slides import MemorySlide
from pathology.tiling import TileSpec, tile_slide
from pathology.viewer.model.worker.subject import Member, Subject
from tests.conftest import settle_statistics, unsettle

CLASSES = ["normal", "tumour", "other"]
TILE = 16
SIDES = 70, 90
GLASS = (250, 240, 230)
# Crosses some tiles, covers one, has a hole; corners lie off the pixels' centres.
OUTLINE = [[10.3, 8.2], [61.7, 14.1], [48.2, 55.3], [20.4, 40.8]]
HOLE = [[30.2, 25.3], [36.7, 25.1], [33.1, 33.4]]
POLYGONS = ((tuple(map(tuple, OUTLINE)), tuple(map(tuple, HOLE))),)


def silent(batches, total, what):
    return batches


def encoded(tiles):
    return encode(tiles.double() / 255, "complement")


encoded.name = "complement"


@cache
def network(outputs=3):
    torch.manual_seed(0)
    model = unsettle(BcosDenseNet(growth_rate=8, block_config=(2, 1), num_classes=outputs)).double()
    return settle_statistics(model, torch.rand(2, 6, 64, 64, dtype=torch.float64))


def pixels():
    return np.random.default_rng(0).integers(0, 256, (*SIDES, 3), dtype=np.uint8)


def slide_of(array):
    return MemorySlide(array, mpp=0.5, background=GLASS)


def grid_of(slide, **options):
    return tile_slide(slide, TileSpec(TILE, 0.5, min_tissue=0.0, **options))


def pooled(pooling=None, depth="pixels"):
    return PooledLogits(network(), encoded, CLASSES, pooling or MeanPooling(), depth)


def subject_of(scorer, grid, slide, target="tumour", **options):
    """The subject that the worker would make of an explanation of this."""
    result = explain_slide(
        slide, grid, scorer, target, out_mpp=0.5, scratch=tempfile.mkdtemp(), **options
    )
    return Subject(result, slide, [Member(scorer, grid, np.arange(len(grid)), 1.0)])


def is_inside(x, y, ring):
    """Whether a point lies in a ring: how often a ray to the right crosses it."""
    crossed = False
    for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            crossed = not crossed
    return crossed


@cache
def inside():
    """The pixels of the slide whose centre lies in the polygon."""
    mask = np.zeros(SIDES, bool)
    for row in range(SIDES[0]):
        for column in range(SIDES[1]):
            x, y = column + 0.5, row + 0.5
            mask[row, column] = is_inside(x, y, OUTLINE) and not is_inside(x, y, HOLE)
    return mask


def painted(array, colour):
    changed = array.copy()
    changed[inside()] = colour
    return changed


def tile_of(array, box):
    """A tile's pixels, encoded, by plain indexing."""
    x, y = round(box.x), round(box.y)
    crop = torch.from_numpy(array[y : y + TILE, x : x + TILE].copy())
    return encoded(crop.permute(2, 0, 1)[None])


def by_loops(model, grid, array, changed, target, weights):
    """What the region contributes, and what changes with W(x) held, tile by tile.

    Args:
        model: of tiles.
        grid: of the slide.
        array, changed: the slide before and after.
        target: class.
        weights: of the tiles.
    """
    mask, contributed, change = inside(), 0.0, 0.0
    for tile, weight in zip(grid, weights, strict=True):
        x, y = round(tile.box.x), round(tile.box.y)
        before, after = tile_of(array, tile.box), tile_of(changed, tile.box)
        found = explain(model, before, target)
        of_tile = torch.from_numpy(mask[y : y + TILE, x : x + TILE])
        contributed += weight * float((found.contributions[0] * of_tile).sum())
        change += weight * float((found.weights * (after - before)).sum())
    return contributed, change


def logits_by_loops(model, grid, array):
    with torch.no_grad():
        return np.stack([model(tile_of(array, tile.box))[0].numpy() for tile in grid])
