"""Exact aggregators learn: every parameter has a slope, and a planted tile is found."""

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from bcos_vit.losses import OneHotBCE
from pathology.aggregators import AGGREGATORS, make_aggregator

OURS = [name for name in AGGREGATORS if name.startswith("bcos")]


def fresh(name, in_features=16, outputs=2, **options):
    """As it is newly made, but small."""
    small = {"dim": 32, "num_heads": 4} if name == "bcos_transformer" else {"hidden": 32}
    options = {"expected_tiles": 12.0} if name == "bcos_gated_sum" else options
    return make_aggregator(name, in_features, outputs, **(small | options))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_every_parameter_has_a_slope(name, scale):
    model = fresh(name)
    features = (torch.randn(4, 12, 16) + 0.5) * scale
    present = torch.rand(4, 12) < 0.8
    loss = OneHotBCE()(model(features, present), torch.tensor([0, 1, 1, 0]))
    loss.backward()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert float(parameter.grad.abs().max()) > 0, key


@pytest.mark.parametrize("name", OURS)
def test_evidence_begins_with_a_size_that_can_be_learnt_from(name):
    """Neither at zero, where B-cos layers have no slope, nor so large that the loss is flat."""
    options = {"expected_tiles": 500.0} if name == "bcos_gated_sum" else {}
    model = make_aggregator(name, 384, 2, **options)
    with torch.no_grad():
        evidence = model(torch.randn(8, 500, 384) + 1) - model.logits.bias
    assert 0.01 < float(evidence.abs().mean()) < 12


@pytest.mark.parametrize(("outputs", "bias"), [(1, -3.0), (2, -1.0), (3, -1.0), (5, -1.3863)])
def test_logits_begin_where_ordinary_tiles_need_not_speak_for_the_class(outputs, bias):
    logits = fresh("bcos_mean", outputs=outputs).logits
    torch.testing.assert_close(logits.bias, torch.full((outputs,), bias), rtol=0, atol=1e-4)


def bags(number, generator):
    """Bags of 12 tiles of noise; in every second one, two tiles show a pattern."""
    features = torch.randn(number, 12, 16, generator=generator)
    labels = torch.arange(number) % 2
    pattern = torch.linspace(-1, 1, 16) * 2.5
    features[labels == 1, :2] += pattern
    present = torch.rand(number, 12, generator=generator) < 0.8
    present[:, :2] = True
    return features, present, labels


@pytest.mark.parametrize("name", OURS)
def test_learns_to_find_tiles_from_labels_of_bags(name):
    generator = torch.Generator().manual_seed(0)
    features, present, labels = bags(256, generator)
    model = fresh(name, **({"k": 2} if name == "bcos_top" else {}))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        for rows in torch.randperm(256).split(32):
            optimiser.zero_grad()
            OneHotBCE()(model(features[rows], present[rows]), labels[rows]).backward()
            optimiser.step()
    features, present, labels = bags(200, generator)
    model.eval()
    with torch.no_grad():
        score = model(features, present).diff(dim=1)[:, 0]
    # Chance is 0.5, with a standard error of 0.04.
    assert float(binary_auroc(score, labels)) > 0.9
