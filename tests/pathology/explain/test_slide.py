"""A slide's explanation is the sum of what its tiles' pixels contribute."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import explain
from bcos_vit.models import BcosDenseNet, create_model
from bcos_vit.transforms import to_bcos
from pathology.annotations import Classes, RasterRegions
from pathology.errors import NoTissueError, SlideError
from pathology.explain.account import Account
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.scorers.pooling import MeanPooling, TopPooling, parse_pooling
from pathology.explain.slide import explain_slide
from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileSpec, tile_slide
from tests.conftest import settle_statistics

CLASSES = ["normal", "tumour"]


def small_cnn():
    torch.manual_seed(0)
    model = BcosDenseNet(growth_rate=8, block_config=(1, 1), num_classes=2)
    return settle_statistics(model, torch.rand(4, 6, 32, 32)).eval()


def small_vit():
    torch.manual_seed(0)
    return create_model("bcos_vit_tiny_patch16_224", num_classes=2, depth=2).eval()


@pytest.fixture(scope="module", params=[small_vit, small_cnn])
def model(request):
    return request.param()


@pytest.fixture
def slide(rng):
    return MemorySlide(rng.integers(0, 256, (150, 170, 3), dtype=np.uint8), mpp=0.5)


def whole_tissue(slide, **spec):
    """A grid over the whole slide, tissue or not."""
    return tile_slide(slide, TileSpec(size_px=32, mpp=0.5, min_tissue=0.0, **spec))


def tile_by_tile(slide, grid, model, target):
    """Logits and contributions of each tile, one at a time."""
    explanations = [
        explain(model, to_bcos(slide.read(tile.box, grid.spec.mpp)), target) for tile in grid
    ]
    logits = np.array([float(e.logit) for e in explanations])
    return logits, np.stack([e.contributions.double().numpy() for e in explanations])


@pytest.mark.parametrize("overlap", [0, 16])
def test_the_map_holds_what_the_tiles_contribute(slide, model, tmp_path, overlap):
    grid = whole_tissue(slide, overlap_px=overlap)
    result = explain_slide(
        slide,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES),
        "tumour",
        out_mpp=0.5,
        scratch=tmp_path,
    )
    logits, contributions = tile_by_tile(slide, grid, model, 1)
    wanted = np.zeros((150, 170))
    for tile, c in zip(grid, contributions, strict=True):
        x, y = int(tile.box.x), int(tile.box.y)
        wanted[y : y + 32, x : x + 32] += c / len(grid)
    # float32 forward and backward, batched against one by one
    assert np.allclose(np.nan_to_num(result.contributions.values), wanted, atol=1e-7)
    assert result.logit == pytest.approx(logits.mean(), abs=1e-6)
    assert result.ledger.gap < 1e-6


@pytest.mark.parametrize("keep_edges", [False, True])
@pytest.mark.parametrize(
    "placement",
    [
        {"placement": "jittered", "overlap_px": 8},
        {"placement": "random", "count": 40},
        {"placement": "annotated", "count": 20},
    ],
    ids=lambda placement: placement["placement"],
)
def test_tiles_that_overlap_anyhow_add_up(rng, tmp_path, placement, keep_edges):
    model = small_cnn()
    pixels = rng.integers(0, 256, (150, 170, 3), dtype=np.uint8)
    slide = MemorySlide(pixels, mpp=(0.5, 0.41), bounds=Box(11, 7, 150, 140))
    values = np.zeros((150, 170))
    values[20:90, 30:120], values[60:140, 70:150] = 1, 2
    drawn = SlideMap(values, Box(0, 0, 170, 150), slide.mpp)
    regions = RasterRegions(drawn, Classes.of({"normal": 1, "tumour": 2}))
    # A level-0 pixel is no whole number of a tile's, along neither side.
    spec = TileSpec(32, 0.53, min_tissue=0.0, keep_edges=keep_edges, **placement)
    grid = tile_slide(slide, spec, regions=regions)
    result = explain_slide(
        slide,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES),
        "tumour",
        out_mpp=2.9,
        scratch=tmp_path,
    )
    logits, contributions = tile_by_tile(slide, grid, model, 1)
    assert result.logit == pytest.approx(logits.mean(), abs=1e-6)
    ledger, given = result.ledger, contributions.sum() / len(grid)
    assert ledger.map_sum + ledger.cut_off == pytest.approx(given, abs=1e-6)
    assert result.contributions.sum() == pytest.approx(ledger.map_sum, abs=1e-6)
    assert ledger.gap < 1e-6
    wanted = np.zeros(result.contributions.values.shape)
    across, down = (
        np.minimum(np.arange(n + 1) * step, side)
        for n, step, side in zip(
            wanted.shape[::-1], result.contributions.downsample, slide.size, strict=True
        )
    )
    for tile, c in zip(grid, contributions, strict=True):
        box = tile.box
        columns = spread(np.linspace(box.x, box.right, 33), across)
        wanted += spread(np.linspace(box.y, box.bottom, 33), down) @ c @ columns.T / len(grid)
    assert np.allclose(np.nan_to_num(result.contributions.values), wanted, atol=1e-7)


def spread(cells, pixels):
    """``(pixels, cells)``: the share of each cell that lies on each pixel, both by their edges."""
    high = np.minimum(cells[None, 1:], pixels[1:, None])
    low = np.maximum(cells[None, :-1], pixels[:-1, None])
    return (high - low).clip(0) / np.diff(cells)


def test_edge_tiles_cut_off_what_lies_outside(slide, model, tmp_path):
    grid = whole_tissue(slide, keep_edges=True)
    result = explain_slide(
        slide,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES),
        "tumour",
        out_mpp=3.0,
        scratch=tmp_path,
    )
    _, contributions = tile_by_tile(slide, grid, model, 1)
    outside = 0.0
    for tile, c in zip(grid, contributions, strict=True):
        x, y = int(tile.box.x), int(tile.box.y)
        outside += c.sum() - c[: 150 - y, : 170 - x].sum()
    assert outside != 0
    assert result.ledger.cut_off == pytest.approx(outside / len(grid), rel=1e-4)
    assert result.ledger.gap < 1e-6


def test_top_pooling_explains_only_what_counts(slide, model, tmp_path):
    grid = whole_tissue(slide)
    result = explain_slide(
        slide,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES, pooling=TopPooling(3)),
        "normal",
        scratch=tmp_path,
        batch_size=2,
    )
    logits, _ = tile_by_tile(slide, grid, model, 0)
    assert result.logit == pytest.approx(np.sort(logits)[-3:].mean(), abs=1e-6)
    assert result.tiles["contribution"].notna().sum() == 3
    assert result.tiles["logit_tumour"].notna().all()
    assert len(result.top(2)) == 2


def test_of_top_tiles_that_add_nothing_one_is_taken_apart(tmp_path):
    """Glass, which is exactly zero in stain space, may score above tissue that speaks against."""
    torch.manual_seed(0)
    model = create_model(
        "bcos_vit_tiny_patch16_224", num_classes=2, depth=1, encoding="stain"
    ).eval()
    pixels = np.full((32, 96, 3), 255, np.uint8)
    pixels[:, :32] = (150, 60, 140)
    with MemorySlide(pixels, mpp=0.5) as slide:
        grid = whole_tissue(slide)
        scorer = PooledLogits(model, TileEncoding(model), CLASSES, TopPooling(2), "head")
        with torch.no_grad():
            tile = torch.from_numpy(pixels[None, :, :32]).permute(0, 3, 1, 2)
            tissue = model(TileEncoding(model)(tile))
        against = CLASSES[int((tissue[0] - model.logits.bias).argmin())]
        result = explain_slide(slide, grid, scorer, against, detail=0.5, scratch=tmp_path)
    assert list(result.tiles["weight"]) == [0, 0.5, 0.5]
    assert result.ledger.undivided.tiles == 1
    assert result.ledger.map_sum == 0
    assert min(result.places) > 0


def test_the_predicted_class_is_explained_when_none_is_given(slide, model, tmp_path):
    grid = whole_tissue(slide)
    result = explain_slide(
        slide, grid, PooledLogits(model, TileEncoding(model), CLASSES), scratch=tmp_path
    )
    means = {c: tile_by_tile(slide, grid, model, i)[0].mean() for i, c in enumerate(CLASSES)}
    assert result.target == max(means, key=means.get)


def test_tiles_say_what_they_add(slide, model, tmp_path):
    grid = whole_tissue(slide)
    result = explain_slide(
        slide, grid, PooledLogits(model, TileEncoding(model), CLASSES), "tumour", scratch=tmp_path
    )
    tiles = result.tiles
    assert np.allclose(tiles["positive"] + tiles["negative"], tiles["contribution"])
    # float32 logits of order one
    assert np.allclose(tiles["contribution"] + tiles["bias"], tiles["logit_tumour"], atol=1e-5)
    shown = [tile.contribution for tile in result.tiles_for]
    assert shown == sorted(shown, reverse=True)
    share = (tiles["weight"] * tiles["contribution"]).max()
    assert shown[0] == pytest.approx(share)
    assert all(tile.contribution < 0 for tile in result.tiles_against)


@pytest.mark.parametrize("out_mpp", [0.5, 3.7, 40.0])
@pytest.mark.parametrize("place", [1, -2, -1])
def test_at_a_depth_each_place_is_spread_over_its_share_of_the_tile(
    slide, model, tmp_path, out_mpp, place
):
    depth = model.depths()[place]
    grid = whole_tissue(slide, overlap_px=16, keep_edges=True)
    result = explain_slide(
        slide,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES, depth=depth),
        "tumour",
        out_mpp=out_mpp,
        scratch=tmp_path,
    )
    images = torch.stack([to_bcos(slide.read(tile.box, grid.spec.mpp)) for tile in grid])
    cells = explain(model, images, 1, depth=depth).contributions.double().numpy() / len(grid)
    rows, columns = 32 // np.array(cells.shape[1:])
    wanted = np.zeros((224, 224))
    for tile, of_tile in zip(grid, cells, strict=True):
        x, y = int(tile.box.x), int(tile.box.y)
        spread = np.kron(of_tile, np.full((rows, columns), 1 / (rows * columns)))
        wanted[y : y + 32, x : x + 32] += spread
    assert result.depth == depth
    assert result.places == cells.shape[1:]
    # Nothing is lost or counted twice, however coarse the map or fine the places; float32.
    ledger = result.ledger
    assert ledger.map_sum + ledger.cut_off == pytest.approx(cells.sum(), abs=1e-6)
    assert ledger.map_sum == pytest.approx(wanted[:150, :170].sum(), abs=1e-6)
    assert ledger.gap < 1e-6
    if out_mpp == 0.5:
        found = np.nan_to_num(result.contributions.values)
        assert np.allclose(found, wanted[:150, :170], atol=1e-7)
    assert all(tile.weights_picture is None for tile in result.tiles_for + result.tiles_against)
    assert result.tiles_for[0].contributions.shape == result.places


def test_at_any_depth_the_score_is_the_same(slide, model, tmp_path):
    grid = whole_tissue(slide)
    scores = []
    for depth in (*model.depths(), "tiles"):
        scorer = PooledLogits(model, TileEncoding(model), CLASSES, depth=depth)
        scores.append(explain_slide(slide, grid, scorer, "tumour", scratch=tmp_path / depth).logit)
    assert np.ptp(scores) < 1e-6


def test_at_the_depth_of_tiles_a_tile_is_one_place(slide, model, tmp_path):
    grid = whole_tissue(slide, overlap_px=16)
    scorer = PooledLogits(model, TileEncoding(model), CLASSES, depth="tiles")
    result = explain_slide(slide, grid, scorer, "tumour", out_mpp=0.5, scratch=tmp_path)
    logits, _ = tile_by_tile(slide, grid, model, 1)
    bias = float(model.logits.bias[1])
    wanted = np.zeros((150, 170))
    for tile, logit in zip(grid, logits, strict=True):
        x, y = int(tile.box.x), int(tile.box.y)
        wanted[y : y + 32, x : x + 32] += (logit - bias) / len(grid) / 32**2
    assert result.places == (1, 1)
    assert np.allclose(np.nan_to_num(result.contributions.values), wanted, atol=1e-7)
    assert result.ledger.bias == pytest.approx(bias)


def test_a_conventional_model_is_explained_as_far_as_its_tiles(slide, tmp_path):
    model = timm.create_model("resnet18", num_classes=2).eval()
    scorer = PooledLogits(model, TileEncoding(model), CLASSES, depth="tiles")
    result = explain_slide(slide, whole_tissue(slide), scorer, "tumour", scratch=tmp_path)
    assert result.ledger.bias == 0
    assert result.ledger.map_sum == pytest.approx(result.logit, abs=1e-6)


def test_a_depth_that_the_model_does_not_have_is_refused(slide, model, tmp_path):
    with pytest.raises(ValueError, match=r"depth must be one of pixels, .*, head for this"):
        explain_slide(
            slide,
            whole_tissue(slide),
            PooledLogits(model, TileEncoding(model), CLASSES, depth="heads"),
            scratch=tmp_path,
        )


def test_additive_position_codes_are_in_the_ledger(slide, tmp_path):
    torch.manual_seed(0)
    model = create_model(
        "bcos_vit_tiny_patch16_224", num_classes=2, depth=2, pos_embed="sincos"
    ).eval()
    result = explain_slide(
        slide,
        whole_tissue(slide),
        PooledLogits(model, TileEncoding(model), CLASSES),
        "tumour",
        scratch=tmp_path,
    )
    assert set(result.ledger.constants) == {"position"}
    assert abs(result.ledger.constants["position"]) > 100 * result.ledger.gap


def test_a_conventional_model_is_refused_by_layer(slide, tmp_path):
    model = timm.create_model("resnet18", num_classes=2).eval()
    with pytest.raises(NotExplainableError, match="ResNet"):
        explain_slide(
            slide,
            whole_tissue(slide),
            PooledLogits(model, TileEncoding(model), CLASSES),
            scratch=tmp_path,
        )


def test_a_target_that_is_no_class_is_refused(slide, model, tmp_path):
    with pytest.raises(ValueError, match=r"one of normal, tumour, or a .*; got 'stroma'"):
        explain_slide(
            slide,
            whole_tissue(slide),
            PooledLogits(model, TileEncoding(model), CLASSES),
            "stroma",
            scratch=tmp_path,
        )


@pytest.mark.parametrize("pooling", [MeanPooling(), TopPooling(3), TopPooling(99)])
def test_weights_sum_to_one(pooling, rng):
    weights = pooling.weights(rng.normal(size=10))
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert parse_pooling(str(pooling)) == pooling


@pytest.mark.parametrize("text", ["max", "top", "top0", "top-3", ""])
def test_an_unknown_pooling_is_refused(text):
    with pytest.raises(ValueError, match="pooling"):
        parse_pooling(text)


def test_what_is_explained_is_what_the_model_saw(slide, model, tmp_path):
    """Normalised pixels contribute, are shown in the gallery, and sum to the score."""
    grid = whole_tissue(slide)
    result = explain_slide(
        slide,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES),
        "tumour",
        out_mpp=0.5,
        batch_size=5,
        scratch=tmp_path,
        normalise=lambda tiles: 255 - tiles,
    )
    array = 255 - slide.read(Box(0, 0, 170, 150), 0.5)
    inverted = MemorySlide(array, mpp=0.5, background=(0, 0, 0))
    wanted = explain_slide(
        inverted,
        grid,
        PooledLogits(model, TileEncoding(model), CLASSES),
        "tumour",
        out_mpp=0.5,
        batch_size=5,
        scratch=tmp_path / "wanted",
    )
    np.testing.assert_array_equal(result.contributions.values, wanted.contributions.values)
    assert result.ledger == wanted.ledger
    assert np.array_equal(result.tiles_for[0].image, wanted.tiles_for[0].image)


def test_a_slide_in_another_colour_than_its_tiles_is_refused(slide, model):
    grid = whole_tissue(slide)
    grid = replace(grid, spec=replace(grid.spec, colour="srgb"))
    with pytest.raises(ValueError, match="opened with colour='stored', its tiles are of 'srgb'"):
        explain_slide(slide, grid, PooledLogits(model, TileEncoding(model), CLASSES))


@pytest.mark.parametrize(
    "numbers",
    [
        {"out_mpp": 0.0}, {"out_mpp": np.inf}, {"out_mpp": np.nan}, {"batch_size": 0},
        {"gallery": -1}, {"detail": 0.0}, {"detail": np.nan},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_refused_before_any_pass(slide, numbers):
    model = small_cnn()
    scorer = PooledLogits(model, TileEncoding(model), CLASSES, TopPooling(2))
    with pytest.raises(ValueError, match=next(iter(numbers))):
        explain_slide(
            slide, whole_tissue(slide), scorer, progress=lambda *_: pytest.fail("read"), **numbers
        )


def test_what_fails_beside_the_model_ends_the_explanation(slide, tmp_path, monkeypatch):
    """Batches go on no further, no thread is left, and the first error is the one raised."""
    model = small_cnn()
    scorer = PooledLogits(model, TileEncoding(model), CLASSES)
    taken, explained, threads = [], [], threading.active_count()

    def fail(*_):
        taken.append(None)
        raise RuntimeError(f"number {len(taken)}")

    def counted(batches, total, what):
        for batch in batches:
            explained.append(batch)
            yield batch

    monkeypatch.setattr(Account, "take", fail)
    with pytest.raises(RuntimeError, match="number 1"):
        explain_slide(
            slide, whole_tissue(slide), scorer, "tumour", batch_size=1, scratch=tmp_path,
            progress=counted,
        )  # fmt: skip
    assert len(explained) <= 3  # of 20
    assert threading.active_count() == threads


def test_a_tile_that_cannot_be_read_ends_the_explanation(slide, tmp_path, monkeypatch):
    model = small_cnn()
    scorer = PooledLogits(model, TileEncoding(model), CLASSES)
    read, threads = slide.read, threading.active_count()

    def damaged(box, mpp):
        if box.y > 60:
            raise SlideError("cannot be decoded")
        return read(box, mpp=mpp)

    monkeypatch.setattr(slide, "read", damaged)
    with pytest.raises(SlideError, match="cannot be decoded"):
        explain_slide(slide, whole_tissue(slide), scorer, "tumour", batch_size=2, scratch=tmp_path)
    assert threading.active_count() == threads


def test_a_slide_without_tiles_is_refused(slide, model):
    nothing = whole_tissue(slide).select(np.zeros(0, np.int64))
    with pytest.raises(NoTissueError, match="has no tiles"):
        explain_slide(slide, nothing, PooledLogits(model, TileEncoding(model), CLASSES))
