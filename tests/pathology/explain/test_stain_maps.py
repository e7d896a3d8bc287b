"""A slide explained in stain space: glass is zero on the map, which is the sum of its stains'."""

import math

import numpy as np
import pytest
import torch

from bcos_vit.explain import explain
from bcos_vit.models import create_model
from bcos_vit.stain_space import STAINS, StainSpace
from bcos_vit.transforms import to_bcos
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.scorers.pooling import TopPooling
from pathology.explain.slide import explain_slide
from pathology.runs.loaded_runs import _input
from pathology.slides import MemorySlide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileSpec, tile_slide

CLASSES = ["normal", "tumour"]
WHITE = (0.9, 0.8, 0.9)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model(
        "bcos_vit_tiny_patch16_224", num_classes=2, depth=2, encoding="stain"
    ).eval()


@pytest.fixture
def pixels(rng):
    """Noise as dark as tissue around a pane of tinted, noisy glass."""
    pixels = rng.integers(0, 200, (96, 128, 3), dtype=np.uint8)
    pixels[20:70, 30:90] = rng.integers((230, 204, 230), 256, (50, 60, 3), dtype=np.uint8)
    return pixels


@pytest.fixture
def explained(model, pixels, tmp_path):
    with MemorySlide(pixels, mpp=0.5) as slide:
        grid = tile_slide(slide, TileSpec(size_px=32, mpp=0.5, min_tissue=0.0))
        encoding = TileEncoding(model, StainSpace(white=WHITE))
        return explain_slide(
            slide,
            grid,
            PooledLogits(model, encoding, CLASSES),
            "tumour",
            out_mpp=0.5,
            scratch=tmp_path,
        )


def test_glass_is_exactly_zero(explained, pixels):
    values = explained.contributions.values
    assert values.shape == pixels.shape[:2]
    assert not values[20:70, 30:90].any()
    values = values.copy()
    values[20:70, 30:90] = 1
    assert values.all()


def test_the_stains_sum_to_the_map(explained):
    parts = {name: stitched.additive.values for name, stitched in explained.stains.items()}
    assert tuple(parts) == STAINS
    whole = explained.contributions.values
    # A few roundings of float32, of the size of the parts.
    atol = 1e-6 * max(np.abs(part).max() for part in parts.values())
    np.testing.assert_allclose(sum(parts.values()), whole, rtol=0, atol=atol)
    ledger = explained.ledger
    total = ledger.map_sum + ledger.cut_off
    assert sum(explained.stain_sums.values()) == pytest.approx(total, abs=1e-7)


def test_tiles_say_what_each_stain_adds(explained):
    tiles = explained.tiles
    for name in STAINS:
        share = tiles["weight"] @ tiles[name]
        assert share == pytest.approx(explained.stain_sums[name], abs=1e-7)


def test_the_numbers_are_those_of_the_tiles(explained, model, pixels):
    first = to_bcos(pixels[:32, :32], encoding="stain", stain_space=StainSpace(white=WHITE))
    wanted = explain(model, first, 1).contributions.numpy() / len(explained.tiles)
    found = explained.contributions.values[:32, :32]
    # float32, one tile against a batch
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-7)


def test_weights_are_not_shown_as_colours(explained):
    shown = explained.tiles_for + explained.tiles_against
    assert shown
    assert all(tile.weights_picture is None for tile in shown)


def test_tiles_that_do_not_count_have_no_stains(model, pixels, tmp_path):
    with MemorySlide(pixels, mpp=0.5) as slide:
        grid = tile_slide(slide, TileSpec(size_px=32, mpp=0.5, min_tissue=0.0))
        result = explain_slide(
            slide,
            grid,
            PooledLogits(model, TileEncoding(model), CLASSES, pooling=TopPooling(3)),
            "normal",
            scratch=tmp_path,
        )
    assert result.tiles["eosin"].notna().sum() == 3


def test_what_stays_whole_is_in_no_stain(model, pixels, tmp_path):
    """Tiles that are not taken apart are on the map alone; their sum is told beside the stains'."""
    with MemorySlide(pixels, mpp=0.5) as slide:
        grid = tile_slide(
            slide, TileSpec(size_px=32, mpp=0.5, min_tissue=0.0, overlap_px=8, keep_edges=True)
        )
        scorer = PooledLogits(model, TileEncoding(model, StainSpace(white=WHITE)), CLASSES)
        result = explain_slide(slide, grid, scorer, "tumour", detail=0.7, scratch=tmp_path)
    sums, ledger = result.stain_sums, result.ledger
    assert tuple(sums) == (*STAINS, "undivided")
    assert sums["undivided"] == ledger.undivided.net != 0
    assert ledger.cut_off != 0
    assert math.fsum(sums.values()) == pytest.approx(ledger.map_sum + ledger.cut_off, abs=1e-7)
    said = _input(scorer.encoding, result)["map and cut off by stain"]
    assert f"undivided tiles {ledger.undivided.net:+.6f} logits" in said
    assert result.tiles["eosin"].isna().sum() == ledger.undivided.tiles


def test_models_of_colours_have_no_stains(pixels, tmp_path):
    model = create_model("bcos_vit_tiny_patch16_224", num_classes=2, depth=1).eval()
    with MemorySlide(pixels, mpp=0.5) as slide:
        grid = tile_slide(slide, TileSpec(size_px=32, mpp=0.5, min_tissue=0.0))
        result = explain_slide(
            slide,
            grid,
            PooledLogits(model, TileEncoding(model), CLASSES),
            "tumour",
            scratch=tmp_path,
        )
    assert result.stains == result.stain_sums == {}
    assert not set(STAINS) & set(result.tiles)
    assert all(tile.weights_picture is not None for tile in result.tiles_for)


def test_at_a_depth_stains_are_not_told_apart(model, pixels, tmp_path):
    with MemorySlide(pixels, mpp=0.5) as slide:
        grid = tile_slide(slide, TileSpec(size_px=32, mpp=0.5, min_tissue=0.0))
        result = explain_slide(
            slide,
            grid,
            PooledLogits(model, TileEncoding(model), CLASSES, depth="head"),
            "tumour",
            scratch=tmp_path,
        )
    assert result.stains == result.stain_sums == {}
    assert not set(STAINS) & set(result.tiles)
