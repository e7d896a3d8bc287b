"""Scores of tiles are what the library says of them; methods are refused where undefined."""

import pytest
import torch

from bcos_vit.errors import UnsupportedMethodError
from pathology.aggregators.explain import explain_bag
from pathology.aggregators.removal import removal_effects
from pathology.benchmark.slides.tile_methods import NAMES, TILE_METHODS, score_tiles
from tests.pathology.benchmark.slides.made import EVERY, aggregator

EXACT = {name for name in EVERY if name.startswith("bcos")} | {"abmil_linear", "mean", "max"}
UNDEFINED = {
    "contribution": {"abmil", "additive", "clam", "transmil"},
    "additive": set(EVERY) - {"additive"},
    "attention": {"bcos_mean", "mean"},
    "lrp": EXACT,
}


@pytest.fixture
def features():
    return torch.randn(6, 5, dtype=torch.float64)


@pytest.mark.parametrize("name", EVERY)
def test_each_method_or_a_reason(name, features):
    model = aggregator(name)
    for method in TILE_METHODS:
        if name in UNDEFINED.get(method, set()):
            with pytest.raises(UnsupportedMethodError, match=type(model).__name__):
                score_tiles(method, model, features, 0)
            continue
        found = score_tiles(method, model, features, 0)
        assert found.scores.shape == (6,)
        assert found.scores.dtype == torch.float64
        assert torch.isfinite(found.scores).all()


@pytest.mark.parametrize("name", ["bcos_pooled", "abmil", "additive"])
def test_what_the_library_says(name, features):
    model = aggregator(name, outputs=2)
    with torch.no_grad():
        single = torch.stack([model(tile[None, None])[0, 1] for tile in features])
        attention = model.attention(features[None])[0]
    expected = {
        "single": single,
        "attention": attention,
        "removal": removal_effects(model, features, 1).effects,
        "random": torch.zeros(6),
    }
    if name != "abmil":
        own = "additive" if name == "additive" else "contribution"
        expected[own] = explain_bag(model, features, 1).contributions
    for method, scores in expected.items():
        found = score_tiles(method, model, features, 1).scores
        torch.testing.assert_close(found, scores.double(), rtol=0, atol=1e-10)


def test_gated_sum_contributes_what_it_loses(features):
    model = aggregator("bcos_gated_sum")
    contribution, removal = (
        score_tiles(method, model, features, 0).scores for method in ("contribution", "removal")
    )
    torch.testing.assert_close(contribution, removal, rtol=0, atol=1e-10)


def test_passes_are_counted(features):
    closed, slow = aggregator("abmil"), aggregator("transmil")
    assert score_tiles("removal", closed, features, 0).forward_passes == 1
    assert score_tiles("removal", slow, features, 0).forward_passes == 7
    found = score_tiles("lrp", slow, features, 0)
    assert (found.forward_passes, found.backward_passes) == (1, 1)


def test_no_such_method(features):
    with pytest.raises(ValueError, match="must be one of contribution"):
        score_tiles("chefer", aggregator("abmil"), features, 0)
    assert NAMES[-1] == "oracle"
