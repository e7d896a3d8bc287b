"""Surrogates against Shapley values by brute force, a plain regression, and Captum."""

import importlib
import itertools
import math
import sys

import numpy as np
import pytest
import torch

from bcos_vit.attribution import make_method
from bcos_vit.attribution import surrogates as module
from bcos_vit.attribution.superpixels import superpixels
from tests.bcos_vit.attribution.networks import Game, Linear, classifier, images, textured

TARGET = torch.tensor([0])


@pytest.fixture
def quarters(monkeypatch):
    """Superpixels are the four quarters of the image."""
    rows = torch.arange(8) // 4
    labels = 2 * rows[:, None] + rows
    monkeypatch.setattr(module, "superpixels", lambda image, *_: labels)
    return labels


def per_part(maps, labels):
    return np.array([maps[0][labels == part].sum() for part in range(int(labels.max()) + 1)])


def shapley(value, players):
    """From the definition: mean gain over all orders, by sets."""
    worth = np.zeros(players)
    for player in range(players):
        others = [p for p in range(players) if p != player]
        for size in range(players):
            share = math.factorial(size) * math.factorial(players - size - 1)
            for chosen in itertools.combinations(others, size):
                gain = value({*chosen, player}) - value(set(chosen))
                worth[player] += share / math.factorial(players) * gain
    return worth


def test_kernel_shap_of_four_superpixels_is_the_shapley_values(quarters):
    white = torch.ones(1, 3, 8, 8, dtype=torch.float64)

    def value(seen):
        mask = sum((quarters == part).double() for part in seen) if seen else 0 * quarters.double()
        return Game()(white * mask)[0, 0].item()

    method = make_method("kernel_shap", n_superpixels=4, n_samples=16, filling="black")
    got = method(classifier(Game()), white, TARGET)
    np.testing.assert_allclose(per_part(got.maps, quarters), shapley(value, 4), atol=1e-6)
    assert got.reference.item() == value(set())
    assert got.completeness_gap.item() < 1e-6
    assert got.forward_passes == 14 + 1 + 1
    # spread evenly
    assert got.maps[0, :4, :4].unique().numel() == 1


def test_sampled_kernel_shap_nears_the_shapley_values_and_sums_exactly():
    # More sets than samples: 12 superpixels have 4094. Contributions are Shapley values of a
    # linear network, and a fit without noise finds them exactly, whatever was drawn.
    model, batch = Linear(32), textured()
    method = make_method("kernel_shap", n_superpixels=12, n_samples=200, filling="black")
    got = method(classifier(model), batch, TARGET)
    labels = superpixels(batch[0], 12)
    assert 2 ** int(labels.max() + 1) > 200
    pixels = (model.weight[0] * batch[0]).sum(0).detach()
    expected = per_part(pixels[None], labels)
    np.testing.assert_allclose(per_part(got.maps, labels), expected, rtol=1e-4, atol=1e-4)
    assert got.completeness_gap.item() < 1e-4  # of maps in float32
    np.testing.assert_allclose(got.fidelity, 1, atol=1e-9)


def test_sampled_kernel_shap_of_a_game_that_is_not_linear(quarters, monkeypatch):
    # Fewer samples than sets by pretending: the sampled branch on the known game.
    white = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    exact = make_method("kernel_shap", n_superpixels=3, n_samples=14, filling="black")
    expected = per_part(exact(classifier(Game()), white, TARGET).maps, quarters)
    method = make_method("kernel_shap", n_superpixels=3, n_samples=20000, filling="black")
    monkeypatch.setattr(module, "_is_few", lambda parts, n: False)
    got = method(classifier(Game()), white, TARGET)
    # Standard error of a sampled fit about 1 / sqrt(20000) of values near 1.
    np.testing.assert_allclose(per_part(got.maps, quarters), expected, atol=0.05)
    assert got.completeness_gap.item() < 1e-6


def test_kernel_shap_agrees_with_captum(quarters):
    attr = pytest.importorskip("captum.attr", exc_type=ImportError)
    pytest.importorskip("sklearn", exc_type=ImportError)
    model, batch = Linear(), images(1)
    theirs = attr.KernelShap(classifier(model)).attribute(
        batch, target=0, baselines=0.0, feature_mask=quarters[None, None], n_samples=400
    )
    expected = [theirs[0, 0][quarters == part][0].item() for part in range(4)]
    method = make_method("kernel_shap", n_superpixels=4, n_samples=16, filling="black")
    got = per_part(method(classifier(model), batch, TARGET).maps, quarters)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)  # theirs is float32


def test_lime_is_the_ridge_regression_of_its_samples(quarters):
    linear = pytest.importorskip("sklearn.linear_model", exc_type=ImportError)
    white = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    method = make_method("lime", n_superpixels=4, n_samples=100, filling="black", seed=5)
    got = method(classifier(Game()), white, TARGET)
    sets, _ = method._sets(4)
    said = Game()(sets.double()[:, quarters][:, None].expand(-1, 3, -1, -1))[:, 0]
    distance = 1 - np.sqrt(sets.double().mean(1).numpy())
    weights = np.sqrt(np.exp(-(distance**2) / 0.25**2))
    ridge = linear.Ridge(alpha=1.0).fit(sets.double().numpy(), said.numpy(), weights)
    np.testing.assert_allclose(per_part(got.maps, quarters), ridge.coef_, rtol=1e-5)
    expected = ridge.score(sets.double().numpy(), said.numpy(), weights)
    np.testing.assert_allclose(got.fidelity, expected)
    assert 0.5 < expected < 0.99  # the game is not linear


def test_lime_finds_a_linear_network():
    model, batch = Linear(32), textured()
    method = make_method("lime", n_superpixels=12, n_samples=400, filling="mean", ridge=1e-9)
    got = method(classifier(model), batch, TARGET)
    labels = superpixels(batch[0], 12)
    apart = batch[0] - batch[0].mean((1, 2), keepdim=True)
    expected = per_part((model.weight[0] * apart).sum(0).detach()[None], labels)
    np.testing.assert_allclose(per_part(got.maps, labels), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got.fidelity, 1, atol=1e-9)


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_a_network_that_says_the_same_whatever_it_sees_has_no_fidelity(name):
    model = Linear(32)
    model.weight.data.zero_()
    method = make_method(name, n_superpixels=4, n_samples=20)
    got = method(classifier(model), textured(), TARGET)
    assert got.fidelity.isnan().all()
    np.testing.assert_allclose(got.maps, 0)


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_an_image_alone_is_as_in_a_batch_and_seeds_count(name):
    batch = textured(2)
    target = torch.tensor([0, 1])
    method = make_method(name, n_superpixels=8, n_samples=40)
    state = torch.get_rng_state()
    both = method(classifier(Linear(32)), batch, target).maps
    assert torch.equal(torch.get_rng_state(), state)
    for i in range(2):
        alone = method(classifier(Linear(32)), batch[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(alone.maps, both[i : i + 1])
    other = make_method(name, n_superpixels=8, n_samples=40, seed=1)
    same = np.allclose(other(classifier(Linear(32)), batch, target).maps, both, rtol=1e-4)
    # On a linear network the constrained fit has no noise; ridge has a little.
    assert same == (name == "kernel_shap")


def test_superpixels_of_two_colours_do_not_mix_them():
    image = torch.zeros(3, 24, 24, dtype=torch.float64)
    image[:, :, 12:] = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)[:, None, None]
    labels = superpixels(image, 8)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    assert not set(labels[:, :12].unique().tolist()) & set(labels[:, 12:].unique().tolist())


def test_the_package_starts_without_scikit_image(monkeypatch):
    for blocked in ("skimage", "skimage.segmentation"):
        monkeypatch.setitem(sys.modules, blocked, None)  # importing it is an ImportError
    importlib.reload(importlib.import_module("bcos_vit.attribution.superpixels"))
    method = make_method("lime")
    with pytest.raises(ImportError, match="skimage"):
        method(classifier(Linear(32)), textured(), TARGET)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lime", {"n_samples": 199}, "n_samples must be at least four times n_superpixels"),
        ("kernel_shap", {"n_superpixels": 0}, "n_superpixels must be at least 1"),
        ("lime", {"width": 0.0}, "width must be positive"),
        ("lime", {"ridge": -1.0}, "ridge must be positive"),
        ("kernel_shap", {"compactness": 0.0}, "compactness must be positive"),
        ("kernel_shap", {"filling": "grey"}, "filling must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, **settings)
