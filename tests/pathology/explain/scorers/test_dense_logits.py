"""A dense model's slide: the same numbers by blocks and by tiles, contributions in the halo too."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from bcos_vit.explain import explain
from bcos_vit.layers import Logits
from bcos_vit.models import BcosDenseNet
from bcos_vit.models.dense import Dense
from bcos_vit.transforms import encode
from pathology.explain.scorers.blocks import Blocks
from pathology.explain.scorers.dense_logits import DenseLogits
from pathology.explain.scorers.pooling import MeanPooling, TopPooling
from pathology.explain.slide import explain_slide, explain_targets
from pathology.geometry import Box
from pathology.slides import MemorySlide
from pathology.tiling import TileSpec, tile_slide
from tests.conftest import settle_statistics, unsettle

CLASSES = ["normal", "tumour", "other"]
TILE, HALO = 16, 24
SIDES = 90, 110


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = unsettle(BcosDenseNet(growth_rate=8, block_config=(2, 1), num_classes=3)).double()
    dense = Dense(settle_statistics(network, torch.rand(2, 6, 64, 64, dtype=torch.float64)))
    assert dense.halo_px == HALO
    return dense


@pytest.fixture(scope="module")
def slide():
    pixels = np.random.default_rng(0).integers(0, 256, (*SIDES, 3), dtype=np.uint8)
    return MemorySlide(pixels, mpp=0.5, bounds=Box(11, 7, 72, 64))


def encoded(tiles):
    return encode(tiles.double() / 255, "complement")


def gridded(slide, **spec):
    return tile_slide(slide, TileSpec(TILE, 0.5, min_tissue=0.0, **spec))


def scorer(model, **options):
    return DenseLogits(model, encoded, CLASSES, **options)


def tile_by_tile(slide, grid, model):
    """Each tile with a halo of its own: logits, and contributions to one class on the slide."""
    logits, maps = [], []
    for tile in grid:
        box = tile.box
        whole = Box(box.x - HALO, box.y - HALO, TILE + 2 * HALO, TILE + 2 * HALO)
        pixels = torch.from_numpy(slide.read(whole, 0.5)).permute(2, 0, 1)
        found = explain(model, encoded(pixels[None]), 1)[0]
        logits.append(found.logits.numpy())
        canvas = np.zeros((SIDES[0] + 4 * HALO, SIDES[1] + 4 * HALO))
        x, y = int(whole.x) + 2 * HALO, int(whole.y) + 2 * HALO
        canvas[y : y + 64, x : x + 64] = found.contributions.numpy()
        maps.append(canvas)
    return np.array(logits), np.array(maps)


@pytest.fixture(scope="module")
def alone(slide, model):
    """The same for a grid of some overlap, found once."""
    return cache(lambda overlap: tile_by_tile(slide, gridded(slide, overlap_px=overlap), model))


def on_slide(canvas):
    return canvas[2 * HALO : -2 * HALO, 2 * HALO : -2 * HALO]


@pytest.mark.parametrize("overlap", [0, 8])
@pytest.mark.parametrize("block_tiles", [1, 3])
def test_a_map_by_blocks_is_the_map_by_tiles(slide, model, alone, tmp_path, overlap, block_tiles):
    grid = gridded(slide, overlap_px=overlap)
    result = explain_slide(
        slide,
        grid,
        scorer(model, block_tiles=block_tiles),
        "tumour",
        out_mpp=0.5,
        batch_size=64,
        scratch=tmp_path,
    )
    logits, maps = alone(overlap)
    wanted = maps.mean(0)
    # The model is float64; the map is stored in float32.
    np.testing.assert_allclose(
        np.nan_to_num(result.contributions.values), on_slide(wanted), atol=1e-9
    )
    assert result.logit == pytest.approx(logits[:, 1].mean(), abs=1e-10)
    np.testing.assert_allclose(
        result.tiles[[f"logit_{name}" for name in CLASSES]], logits, atol=1e-10
    )
    ledger = result.ledger
    assert ledger.cut_off == pytest.approx(wanted.sum() - on_slide(wanted).sum(), abs=1e-8)
    assert ledger.gap < 1e-7  # pixels in float32
    biases = model.logits.bias[1].item()
    assert ledger.bias == pytest.approx(biases)
    np.testing.assert_allclose(result.tiles["contribution"], logits[:, 1] - biases, atol=1e-10)


def test_coverage_is_that_of_the_tiles_alone(slide, model, tmp_path):
    grid = gridded(slide)
    result = explain_slide(slide, grid, scorer(model), "tumour", out_mpp=0.5, scratch=tmp_path)
    covered = np.zeros(SIDES)
    for tile in grid:
        x, y = int(tile.box.x), int(tile.box.y)
        covered[y : y + TILE, x : x + TILE] += 1 / len(grid)
    np.testing.assert_allclose(result.stitched.coverage.values, covered, atol=1e-9)
    # Beside the tiles the halo has contributions all the same.
    beside = np.nan_to_num(result.contributions.values[covered == 0])
    assert np.abs(beside).max() > 0


@pytest.mark.parametrize("block_tiles", [1, 2])
@pytest.mark.parametrize("pooling", [MeanPooling(), TopPooling(7)], ids=str)
def test_classes_and_differences_in_one_pass(slide, model, alone, tmp_path, pooling, block_tiles):
    grid = gridded(slide)
    targets = ["tumour", "other", "tumour - normal", "other - mean"]
    found = explain_targets(
        slide,
        grid,
        scorer(model, pooling=pooling, block_tiles=block_tiles),
        targets,
        out_mpp=1.3,
        scratch=tmp_path,
    )
    logits, maps = alone(0)
    pooled = np.array([pooling.weights(column) @ column for column in logits.T])
    wanted = [pooled[1], pooled[2], pooled[1] - pooled[0], pooled[2] - pooled.mean()]
    assert [each.target for each in found] == targets
    assert [each.logit for each in found] == pytest.approx(wanted, abs=1e-9)
    assert max(each.ledger.gap for each in found) < 1e-6
    weights = pooling.weights(logits[:, 1])
    total = on_slide(np.einsum("n,nyx->yx", weights, maps)).sum()
    assert found[0].ledger.map_sum == pytest.approx(total, abs=1e-6)
    for each in found:
        # A block may be taken apart for another target's tiles, too.
        unused = each.tiles["weight"] == 0
        assert each.tiles.loc[unused, ["contribution", "bias", "gap"]].isna().all(axis=None)
        assert each.tiles.loc[~unused, ["contribution", "bias", "gap"]].notna().all(axis=None)


def test_tiles_off_any_lattice_have_halos_of_their_own(slide, model, tmp_path):
    grid = gridded(slide, placement="random", count=9)
    blocks = Blocks(model, grid, 4)
    assert blocks.lattice is None
    windows = blocks.windows(np.arange(9))
    assert [window.tiles for window in windows] == [(i,) for i in range(9)]
    assert windows[0].box.width == TILE + 2 * HALO
    result = explain_slide(slide, grid, scorer(model), "tumour", out_mpp=0.5, scratch=tmp_path)
    _, maps = tile_by_tile(slide, grid, model)
    np.testing.assert_allclose(
        np.nan_to_num(result.contributions.values), on_slide(maps.mean(0)), atol=1e-9
    )
    # A window with one tile tells its parts.
    positive = maps.clip(0).sum((1, 2))
    np.testing.assert_allclose(result.tiles["positive"], positive, atol=1e-9)


def test_blocks_hold_each_tile_once_inside_their_halo(slide, model, rng):
    whole = gridded(slide, overlap_px=8)
    grid = whole.select(np.sort(rng.choice(len(whole), 40, replace=False)))
    for block_tiles in (1, 2, 3, 5):
        windows = Blocks(model, grid, block_tiles).windows(np.arange(len(grid)))
        assert sorted(i for window in windows for i in window.tiles) == list(range(len(grid)))
        assert len({(w.box.width, w.box.height) for w in windows}) == 1
        assert [w.box.y for w in windows] == sorted(w.box.y for w in windows)
        for window in windows:
            inside = Box(
                window.box.x + HALO,
                window.box.y + HALO,
                window.box.width - 2 * HALO,
                window.box.height - 2 * HALO,
            )
            for i in window.tiles:
                box = grid[i].box
                assert box.intersection(inside) == box
    assert len(windows) < 20


def test_some_tiles_may_stay_whole(slide, model, alone, tmp_path):
    grid = gridded(slide)
    found = explain_slide(
        slide, grid, scorer(model), "tumour", detail=0.7, out_mpp=0.5, scratch=tmp_path
    )
    logits, _ = alone(0)
    assert found.logit == pytest.approx(logits[:, 1].mean(), abs=1e-9)
    assert found.ledger.undivided is not None
    np.testing.assert_allclose(
        found.tiles["contribution"], logits[:, 1] - float(model.logits.bias[1]), atol=1e-9
    )


@pytest.mark.parametrize("depth", ["features.norm0", "head", "tiles"])
@pytest.mark.parametrize("block_tiles", [1, 3])
def test_maps_at_a_depth_sum_to_the_same(slide, model, alone, tmp_path, depth, block_tiles):
    grid = gridded(slide)
    found = explain_slide(
        slide,
        grid,
        scorer(model, depth=depth, block_tiles=block_tiles),
        "tumour",
        out_mpp=0.5,
        scratch=tmp_path,
    )
    logits, _ = alone(0)
    assert found.logit == pytest.approx(logits[:, 1].mean(), abs=1e-9)
    assert found.ledger.gap < 1e-6
    np.testing.assert_allclose(
        found.tiles[[f"logit_{name}" for name in CLASSES]], logits, atol=1e-9
    )
    values = np.nan_to_num(found.contributions.values)
    if depth in ("head", "tiles"):  # nothing of a tile lies outside of it
        for i, tile in enumerate(grid):
            x, y = int(tile.box.x), int(tile.box.y)
            share = (logits[i, 1] - float(model.logits.bias[1])) / len(grid)
            assert values[y : y + TILE, x : x + TILE].sum() == pytest.approx(share, abs=1e-7)


def test_a_rescaled_slide_keeps_its_lattice(rng, model, tmp_path):
    pixels = rng.integers(0, 256, (200, 180, 3), dtype=np.uint8)
    slide = MemorySlide(pixels, mpp=(0.2528, 0.2611))
    grid = gridded(slide, keep_edges=True)
    blocks = Blocks(model, grid, 3)
    assert blocks.lattice is not None
    results = [
        explain_slide(
            slide,
            grid,
            scorer(model, block_tiles=side),
            "tumour",
            out_mpp=1.7,
            scratch=tmp_path / str(side),
        )
        for side in (1, 3)
    ]
    # Pixels between others are rounded to whole grey levels in blocks and tiles alike.
    assert results[0].logit == pytest.approx(results[1].logit, abs=1e-4)
    assert max(each.ledger.gap for each in results) < 1e-6


def test_a_plain_network_keeps_its_padding_out_of_here(slide, model):
    assert isinstance(model.logits, Logits)
    with pytest.raises(ValueError, match="block_tiles must be at least 1, got 0"):
        scorer(model, block_tiles=0)
    with pytest.raises(ValueError, match=r"depth must be one of .*head"):
        scorer(model, depth="layer9")
    grid = gridded(slide)
    odd = replace(grid, spec=replace(grid.spec, size_px=20))
    with pytest.raises(ValueError, match="tiles must be a multiple of 8 px, got 20"):
        Blocks(model, odd, 2).windows(np.arange(3))


def test_logits_that_are_not_finite_are_refused(model, slide, tmp_path):
    """A pooling by the highest would pass them over."""
    grid = gridded(slide)
    blind = DenseLogits(
        model, lambda tiles: encoded(tiles) * np.nan, CLASSES, TopPooling(2), depth="tiles"
    )
    with pytest.raises(ValueError, match=r"logits of the tile at .* are not finite"):
        explain_slide(slide, grid, blind, "tumour", scratch=tmp_path)
