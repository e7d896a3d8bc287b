"""Logits of subsets are the aggregator's, by closed form or not."""

import pytest
import torch

from pathology.benchmark.slides.bag_logits import BagLogits, probability
from tests.pathology.benchmark.slides.made import EVERY, aggregator


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_as_the_aggregator_run_on_each(name, outputs):
    model, features = aggregator(name, outputs=outputs), torch.randn(7, 5, dtype=torch.float64)
    logits = BagLogits(model, features)
    kept = torch.rand(6, 7) < 0.5
    kept[0], kept[1] = True, False
    found = logits(kept)
    with torch.no_grad():
        for row, subset in zip(found, kept, strict=True):
            expected = model(features[subset][None])[0]
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(logits.whole(), model(features[None])[0], rtol=0, atol=1e-10)
    assert logits.forward_passes == (0 if logits.closed_form else 7)


def test_attention_pooling_has_closed_forms():
    features = torch.randn(4, 5, dtype=torch.float64)
    closed = {name for name in EVERY if BagLogits(aggregator(name), features).closed_form}
    assert {"abmil", "clam", "bcos_attention", "bcos_pooled", "bcos_gated_sum"} <= closed
    assert not {"transmil", "additive", "bcos_transformer"} & closed


def test_probabilities():
    one, two = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0, 2.0]])
    assert probability(one, 0).tolist() == pytest.approx([0.5, 0.8807970779778823])
    assert probability(two, 1).tolist() == pytest.approx([0.8807970779778823])


def test_what_is_refused():
    model, features = aggregator("abmil"), torch.randn(4, 5, dtype=torch.float64)
    logits = BagLogits(model, features)
    with pytest.raises(TypeError, match="bool"):
        logits(torch.ones(1, 4))
    with pytest.raises(ValueError, match="subsets, 4"):
        logits(torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="training mode"):
        BagLogits(model.train(), features)
