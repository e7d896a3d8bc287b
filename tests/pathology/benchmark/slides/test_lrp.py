"""LRP against loops over neurons, and what it conserves; refusals."""

import numpy as np
import pytest
import torch

from bcos_vit.errors import UnsupportedMethodError
from pathology.aggregators.explain import explain_bag
from pathology.benchmark.slides.lrp import _FORMS, _Rules, lrp
from tests.pathology.benchmark.slides.made import EVERY, aggregator

WITH_RULES = ("abmil", "additive", "clam", "transmil")


def epsilon_rule(x, weight, bias, relevance, epsilon):
    """One linear layer, neuron by neuron."""
    z = weight @ x + bias
    found = np.zeros_like(x)
    for k, one in enumerate(relevance):
        share = one / (z[k] + epsilon * (1 if z[k] >= 0 else -1))
        for j in range(len(x)):
            found[j] += x[j] * weight[k, j] * share
    return found


def abmil_by_loops(model, features, epsilon):
    """Relevance of tiles for the only output."""
    arrays = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    first = arrays["embed.0.weight"], arrays["embed.0.bias"]
    middle = arrays["classifier.0.weight"], arrays["classifier.0.bias"]
    last = arrays["classifier.2.weight"], arrays["classifier.2.bias"]
    h = features.numpy()
    embedded = np.maximum(h @ first[0].T + first[1], 0)
    weights = model.attention(features[None])[0].detach().numpy()
    pooled = weights @ embedded
    hidden = np.maximum(middle[0] @ pooled + middle[1], 0)
    logit = last[0] @ hidden + last[1]
    relevance = epsilon_rule(hidden, *last, logit, epsilon)
    relevance = epsilon_rule(pooled, *middle, relevance, epsilon)
    tiles = []
    for tile in range(len(h)):
        shares = weights[tile] * embedded[tile] / (pooled + epsilon * np.sign(pooled + 1e-300))
        tiles.append(epsilon_rule(h[tile], *first, shares * relevance, epsilon).sum())
    return tiles


@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 1.0])
def test_attention_pooling_as_by_loops(epsilon):
    model, features = aggregator("abmil"), torch.randn(6, 5, dtype=torch.float64)
    found = lrp(model, features, 0, epsilon=epsilon)
    assert found.tolist() == pytest.approx(abmil_by_loops(model, features, epsilon), abs=1e-9)


@pytest.mark.parametrize("tiles", [1, 4, 7])
@pytest.mark.parametrize("name", WITH_RULES)
def test_the_network_that_relevance_goes_through_is_the_aggregator(name, tiles):
    model, features = aggregator(name, outputs=2), torch.randn(tiles, 5, dtype=torch.float64)
    with torch.no_grad():
        again = _FORMS[type(model)](model, features, _Rules(0.3))
        torch.testing.assert_close(again, model(features[None])[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", WITH_RULES)
def test_without_biases_and_token_nothing_is_lost(name):
    model, features = aggregator(name, outputs=2), torch.randn(7, 5, dtype=torch.float64)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias") or key == "token":
                parameter.zero_()
        logits = model(features[None])[0]
    for target in range(2):
        relevance = lrp(model, features, target, epsilon=0)
        assert float(relevance.sum()) == pytest.approx(float(logits[target]), abs=1e-9)
        damped = lrp(model, features, target, epsilon=0.5)
        assert abs(float(damped.sum())) < abs(float(logits[target]))


def test_terms_of_additive_mil_without_biases():
    """Its classifier is then linear along each ray, so that a tile's relevance is its term."""
    model, features = aggregator("additive"), torch.randn(6, 5, dtype=torch.float64)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.zero_()
    terms = explain_bag(model, features, 0).contributions
    torch.testing.assert_close(lrp(model, features, 0, epsilon=0), terms, rtol=0, atol=1e-10)


def test_calibration_scales_relevance():
    model, features = aggregator("clam"), torch.randn(6, 5, dtype=torch.float64)
    before = lrp(model, features, 0)
    model.rescale([2.0], [1.0])
    torch.testing.assert_close(lrp(model, features, 0), before / 2)


def test_nothing_is_left_behind():
    model, features = aggregator("transmil"), torch.randn(6, 5, dtype=torch.float64)
    lrp(model, features, 0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not features.requires_grad


@pytest.mark.parametrize("name", [name for name in EVERY if name not in WITH_RULES])
def test_no_rules_no_relevance(name):
    with pytest.raises(UnsupportedMethodError, match="LRP has no rules"):
        lrp(aggregator(name), torch.randn(4, 5, dtype=torch.float64), 0)


def test_what_is_refused():
    model, features = aggregator("abmil"), torch.randn(4, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="epsilon"):
        lrp(model, features, 0, epsilon=-1)
    with pytest.raises(ValueError, match="target"):
        lrp(model, features, 1)
    with pytest.raises(ValueError, match="without tiles"):
        lrp(model, features[:0], 0)
    with pytest.raises(ValueError, match="training mode"):
        lrp(model.train(), features, 0)
