"""A slide model's score, from its aggregator over tiles down to pixels."""

import numpy as np
import pytest
import timm
import torch

from bcos_vit.errors import NotExplainableError
from bcos_vit.models import create_model
from pathology.aggregators.registry import AGGREGATORS, make_aggregator
from pathology.data.encoders import PooledFeatures
from pathology.explain.scorers.aggregated_features import AggregatedFeatures
from pathology.explain.slide import explain_slide
from pathology.metrics import Calibration, apply_calibration
from pathology.slides import MemorySlide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileSpec, tile_slide

CLASSES = ["normal", "tumour"]
EXACT = [name for name, kind in AGGREGATORS.items() if kind.exact]


@pytest.fixture
def slide(rng):
    return MemorySlide(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8), mpp=0.5)


@pytest.fixture
def grid(slide):
    return tile_slide(
        slide, TileSpec(size_px=32, mpp=0.5, overlap_px=8, min_tissue=0.0, keep_edges=True)
    )


def made(aggregator, depth="pixels", encoder="bcos_vit_tiny_patch16_224", **args):
    torch.manual_seed(0)
    args = args | ({"depth": 1} if "vit" in encoder else {})
    model = create_model(encoder, num_classes=2, **args).eval()
    features = PooledFeatures(model).eval()
    aggregator = make_aggregator(aggregator, features.dims, 2).eval()
    return AggregatedFeatures(features, TileEncoding(model), aggregator, CLASSES, depth)


def score_of(scorer, slide, grid):
    """The slide's logits, from its tiles one by one."""
    with torch.no_grad():
        tiles = [
            torch.from_numpy(slide.read(t.box, grid.spec.mpp)).permute(2, 0, 1)[None] for t in grid
        ]
        features = torch.cat([scorer.encoder(scorer.encoding(tile)) for tile in tiles])
        return scorer.aggregator(features[None])[0], features


@pytest.mark.parametrize("name", EXACT)
def test_pixels_add_up_to_the_slides_logit(slide, grid, name, tmp_path):
    scorer = made(name)
    result = explain_slide(slide, grid, scorer, "tumour", out_mpp=0.5, scratch=tmp_path)
    logits, _ = score_of(scorer, slide, grid)
    # float32, tiles one by one against batches
    assert result.logit == pytest.approx(float(logits[1]), abs=1e-5)
    ledger = result.ledger
    assert ledger.cut_off != 0
    assert ledger.gap < 1e-5
    assert result.contributions.sum() == pytest.approx(ledger.map_sum, abs=1e-6)
    assert result.tiles["contribution"].sum() == pytest.approx(
        ledger.map_sum + ledger.cut_off, abs=1e-5
    )
    assert not [name for name in result.tiles if name.startswith("logit_")]
    assert all(tile.logit is None for tile in result.tiles_for)


@pytest.mark.parametrize("depth", ["layer2", "layer4", "tiles"])
def test_explanations_of_features_stop_where_they_are_asked_to(slide, grid, depth, tmp_path):
    whole, result = (
        explain_slide(
            slide,
            grid,
            made("bcos_pooled", stop, encoder="bcos_resnet18"),
            "tumour",
            scratch=tmp_path / stop,
        )
        for stop in ("pixels", depth)
    )
    assert result.logit == pytest.approx(whole.logit, abs=1e-6)
    # A tile counts the same at every depth.
    np.testing.assert_allclose(
        result.tiles["contribution"], whole.tiles["contribution"], rtol=0, atol=1e-5
    )
    assert result.depth == depth


def test_in_a_gated_sum_contribution_and_removal_effect_are_the_same(slide, grid, tmp_path):
    result = explain_slide(slide, grid, made("bcos_gated_sum"), "tumour", scratch=tmp_path)
    tiles = result.tiles
    np.testing.assert_allclose(tiles["contribution"], tiles["removal_effect"], rtol=0, atol=1e-5)
    assert tiles["attention"].min() >= 0
    best = (result.tiles_for + result.tiles_against)[0]
    assert best.removal_effect == pytest.approx(best.contribution, abs=1e-5)


def test_the_removal_effect_is_what_happens(slide, grid, tmp_path):
    scorer = made("bcos_attention")
    result = explain_slide(slide, grid, scorer, "normal", scratch=tmp_path)
    logits, features = score_of(scorer, slide, grid)
    with torch.no_grad():
        without = scorer.aggregator(features[None, 1:])[0, 0]
    assert result.tiles["removal_effect"][0] == pytest.approx(float(logits[0] - without), abs=1e-5)


def test_what_an_encoder_adds_by_itself_is_in_the_ledger(slide, grid, tmp_path):
    plain = explain_slide(slide, grid, made("bcos_pooled"), "tumour", scratch=tmp_path / "plain")
    assert plain.ledger.constants == {}
    scorer = made("bcos_pooled", pos_embed="sincos")
    result = explain_slide(slide, grid, scorer, "tumour", scratch=tmp_path / "position")
    assert set(result.ledger.constants) == {"position"}
    assert abs(result.ledger.constants["position"]) > 100 * result.ledger.gap


def test_a_conventional_encoder_is_explained_as_far_as_tiles(slide, grid, tmp_path):
    model = timm.create_model("resnet18", num_classes=0).eval()
    features = PooledFeatures(model).eval()
    aggregator = make_aggregator("bcos_gated_sum", features.dims, 2).eval()
    with pytest.raises(NotExplainableError, match="ResNet"):
        AggregatedFeatures(features, TileEncoding(model), aggregator, CLASSES)
    scorer = AggregatedFeatures(features, TileEncoding(model), aggregator, CLASSES, "tiles")
    result = explain_slide(slide, grid, scorer, scratch=tmp_path)
    assert result.ledger.gap < 1e-5


def test_an_aggregator_that_is_no_sum_over_tiles_is_refused(slide, grid, tmp_path):
    with pytest.raises(NotExplainableError, match="no sum over tiles"):
        explain_slide(slide, grid, made("abmil", depth="tiles"), "tumour", scratch=tmp_path)


def test_one_that_is_additive_otherwise_goes_as_far_as_tiles(slide, grid, tmp_path):
    with pytest.raises(NotExplainableError, match="stop at tiles"):
        explain_slide(slide, grid, made("additive"), "tumour", scratch=tmp_path)
    scorer = made("additive", depth="tiles")
    plain = explain_slide(slide, grid, scorer, "tumour", scratch=tmp_path / "tiles")
    assert plain.ledger.is_closed
    by = {"temperatures": [2.0, 4.0], "shifts": [0.0, 0.5]}
    told = dict.fromkeys(("thresholds", "rule", "checkpoint", "split", "digest", "examples"))
    apply_calibration(scorer.aggregator, Calibration(CLASSES, "softmax", **by, **told))
    result = explain_slide(slide, grid, scorer, "tumour", scratch=tmp_path / "calibrated")
    assert result.ledger.gap < 1e-5
    assert result.ledger.bias == 0.5
    assert result.ledger.map_sum == pytest.approx(plain.ledger.map_sum / 4, abs=1e-6)
