"""Models that know nothing: same numbers in other places, statistics that fit, no trace left."""

from dataclasses import dataclass

import pytest
import timm
import torch
from torch import nn

from bcos_vit.explain import explain
from bcos_vit.layers import BcosBatchNorm2d
from bcos_vit.models import BcosDenseNet
from pathology.explain.layers.random_weights import (
    networks,
    norms,
    permuted,
    refit_norms,
    with_random_weights,
)
from tests.conftest import settle_statistics, unsettle


def small_cnn():
    """With batch norms, float64."""
    network = BcosDenseNet(growth_rate=8, block_config=(2, 1), num_classes=3).double()
    images = torch.rand(8, 6, 32, 32, dtype=torch.float64)
    return settle_statistics(unsettle(network), images)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_each_tensor_keeps_its_numbers_and_loses_their_places():
    model = small_cnn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = permuted(model, generator(0))
    parameters = dict(other.named_parameters())
    moved = 0
    for name, value in model.named_parameters():
        ours, theirs = value.flatten(), parameters[name].flatten()
        assert torch.equal(ours.sort().values, theirs.sort().values), name
        moved += int((ours != theirs).sum())
    assert moved > 0.9 * sum(p.numel() for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in other.named_buffers():
        assert torch.equal(value, before[name]), name


def test_seeds_decide(make_vit):
    model = make_vit()
    first, same, other = (list(permuted(model, generator(s)).parameters()) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_tied_parameters_stay_tied():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    other = permuted(model, generator(0))
    assert other[0].weight is other[1].weight
    assert other[0].weight is not model[0].weight


def test_norms_take_their_statistics_from_what_comes():
    model = permuted(small_cnn(), generator(0))
    batches = [torch.rand(n, 6, 32, 32, dtype=torch.float64) for n in (4, 4, 1)]
    first = next(m for m in model.modules() if isinstance(m, BcosBatchNorm2d))
    met = []
    hook = first.register_forward_hook(
        lambda _m, x, _y: met.append(x[0].var((0, 2, 3), correction=0))
    )
    momenta = [norm.momentum for norm in norms(model)]
    refit_norms(model, batches)
    hook.remove()
    wanted = (4 * met[0] + 4 * met[1] + met[2]) / 9
    assert torch.allclose(first.running_var, wanted, rtol=1e-12)
    assert [norm.momentum for norm in norms(model)] == momenta
    assert not any(module.training for module in model.modules())
    # Of one batch, evaluation then is what training says of that batch.
    refit_norms(model, batches[:1])
    settled = model(batches[0])
    for norm in norms(model):
        norm.train()
    assert torch.allclose(model(batches[0]), settled, rtol=1e-10)


def test_conventional_norms_are_fitted_too():
    norm = nn.BatchNorm2d(3).eval()
    batches = [torch.randn(8, 3, 5, 5) * 4 + 7 for _ in range(2)]
    refit_norms(nn.Sequential(norm), batches)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(norm.running_mean, means, rtol=1e-5)
    assert not norm.training


def test_norms_are_as_they_were_after_an_error():
    model = small_cnn()
    with pytest.raises(RuntimeError):
        refit_norms(model, [torch.rand(4, 5, 32, 32, dtype=torch.float64)])
    assert not any(module.training for module in model.modules())


@dataclass(frozen=True)
class OfTiles:
    model: nn.Module
    depth: str = "pixels"


@dataclass(frozen=True)
class OfSlides:
    encoder: nn.Module
    aggregator: nn.Module


def test_a_tile_model_is_explained_as_exactly_with_random_weights():
    model, images = small_cnn(), torch.rand(4, 6, 32, 32, dtype=torch.float64)
    before = explain(model, images, target=1)
    scorer, names = with_random_weights(OfTiles(model), 3, lambda: [images])
    assert names == ["model"]
    found = explain(scorer.model, images, target=1)
    assert found.completeness_gap.max() < 1e-12
    assert not torch.allclose(found.contributions, before.contributions, rtol=0.1)
    # Signals are of order one, or evidence of random weights would be nothing at all.
    assert found.contributions.abs().sum() > 1e-3 * before.contributions.abs().sum()
    again = explain(model, images, target=1)
    assert torch.equal(again.contributions, before.contributions)


def test_images_are_not_read_where_no_norm_needs_them(make_vit):
    def images():
        raise AssertionError("read for nothing")

    with_random_weights(OfTiles(make_vit()), 0, images)


def test_an_encoder_that_is_not_taken_apart_keeps_its_weights(make_vit):
    foreign = timm.create_model("resnet18", num_classes=0).eval()
    assert list(networks(OfSlides(foreign, nn.Linear(4, 2)))) == ["aggregator"]
    assert list(networks(OfSlides(make_vit(), nn.Linear(4, 2)))) == ["encoder", "aggregator"]


def test_a_scorer_without_networks_has_no_null():
    with pytest.raises(ValueError, match="no network"):
        networks(object())
