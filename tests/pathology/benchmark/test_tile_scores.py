"""Scores of batches of bags are those that the library gives bag by bag."""

import pytest
import torch

from pathology.aggregators import AGGREGATORS, make_aggregator
from pathology.aggregators.explain import explain_bag
from pathology.aggregators.removal import removal_effects
from pathology.benchmark.tile_scores import SCORES, tile_scores

SMALL = {"hidden": 6, "attention_hidden": 4, "dim": 8, "num_heads": 2, "heads": 2}


def make(name):
    import inspect

    known = inspect.signature(AGGREGATORS[name]).parameters
    options = {key: value for key, value in SMALL.items() if key in known}
    if name == "transmil":
        options["hidden"] = 8
    model = make_aggregator(name, 5, 3, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture
def features():
    return torch.randn(2, 6, 5, dtype=torch.float64)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_as_bag_by_bag(name, features):
    model = make(name)
    scores = tile_scores(model, features)
    additive = model.exact or name == "additive"
    assert ("contribution" in scores) == additive
    assert {"removal", "gradient_input"} <= set(scores) <= set(SCORES)
    for bag in range(2):
        for target in range(3):
            if additive:
                expected = explain_bag(model, features[bag], target).contributions
                found = scores["contribution"][bag, :, target]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
            effects = removal_effects(model, features[bag], target).effects
            found = scores["removal"][bag, :, target]
            torch.testing.assert_close(found, effects, rtol=0, atol=1e-9)
    drawn = model.attention(features)
    assert ("attention" in scores) == (drawn is not None)
    if drawn is not None:
        for target in range(3):
            assert torch.equal(scores["attention"][..., target], drawn)


@pytest.mark.parametrize("name", ["abmil", "bcos_pooled"])
def test_gradient_times_input_holds_nothing(name, features):
    """By finite differences along the features of each tile."""
    model = make(name)
    found = tile_scores(model, features)["gradient_input"]
    step = 1e-6
    for tile in range(6):
        moved = []
        for sign in (1, -1):
            scaled = features.clone()
            scaled[:, tile] *= 1 + sign * step
            moved.append(model(scaled))
        slope = (moved[0] - moved[1]) / (2 * step)
        torch.testing.assert_close(found[:, tile], slope.detach(), rtol=1e-5, atol=1e-7)
