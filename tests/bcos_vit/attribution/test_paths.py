"""Path methods against integrals by hand, Captum, and their own completeness."""

import pytest
import torch
from torch import nn

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.attribution.fillings import fill
from tests.bcos_vit.attribution.families import spotted, tiny
from tests.bcos_vit.attribution.networks import Linear, classifier, images

TARGET = torch.tensor([1, 0])
COLOUR = (0.9, 0.8, 0.85)
BASELINES = ("black", "white", "glass", "mean", "blur", "zero", COLOUR)


class Cubes(nn.Module):
    """Logits ``(sum of x^2, sum of x^3)``: a pixel's share of the way is ``x^k - b^k``."""

    def forward(self, x):
        return torch.stack([(x**2).sum((1, 2, 3)), (x**3).sum((1, 2, 3))], 1)


def start_of(baseline, network, x):
    if baseline == "zero":
        return torch.zeros_like(network.encode(x))
    if baseline == COLOUR:
        return network.encode(torch.tensor(COLOUR, dtype=x.dtype)[:, None, None].expand_as(x))
    return network.encode(fill(baseline, x))


@pytest.mark.parametrize("baseline", BASELINES)
def test_shares_of_powers_are_exact(baseline):
    network, x = classifier(Cubes()), images()
    # A rule of two points is exact for the second power that is integrated.
    attribution = make_method("integrated_gradients", baseline=baseline, steps=2)(
        network, x, TARGET
    )
    start = start_of(baseline, network, x)
    expected = torch.stack([(x[0] ** 3 - start[0] ** 3).sum(0), (x[1] ** 2 - start[1] ** 2).sum(0)])
    torch.testing.assert_close(attribution.maps, expected.float())
    torch.testing.assert_close(
        attribution.reference, network.model(start).gather(1, TARGET[:, None])[:, 0]
    )
    assert attribution.completeness_gap.max() < 1e-4


@pytest.mark.parametrize("family", ["vit", "bcos_vit", "bcos_convnext", "swin"])
@pytest.mark.parametrize("baseline", ["black", "blur"])
def test_maps_sum_to_the_difference_of_logits(family, baseline):
    network = tiny(family)
    attribution = make_method("integrated_gradients", baseline=baseline)(network, spotted(), TARGET)
    difference = (attribution.logit - attribution.reference).abs()
    assert (attribution.completeness_gap <= 0.01 * difference).all()


def test_too_few_steps_show_as_a_gap():
    rough, fine = (
        make_method("integrated_gradients", steps=steps)(
            classifier(Cubes()), images(), torch.tensor([1, 1])
        )
        for steps in (1, 2)
    )
    assert (rough.completeness_gap > 1e4 * fine.completeness_gap).all()


def test_integrated_gradients_as_captum():
    captum = pytest.importorskip("captum.attr", exc_type=ImportError)
    network, x = tiny("bcos_vit"), spotted()
    attribution = make_method("integrated_gradients", baseline="white", steps=5)(network, x, TARGET)
    expected = captum.IntegratedGradients(network.model).attribute(
        network.encode(x), start_of("white", network, x), TARGET, n_steps=5, method="gausslegendre"
    )
    torch.testing.assert_close(attribution.maps, expected.sum(1).float(), rtol=1e-4, atol=1e-7)


def test_the_zero_of_a_bcos_network_contributes_nothing():
    network = tiny("bcos_vit")
    attribution = make_method("integrated_gradients", baseline="zero", steps=2)(
        network, spotted(), TARGET
    )
    bias = make_method("bcos")(network, spotted(), TARGET).constants["bias"]
    torch.testing.assert_close(attribution.reference, bias)


def test_gradient_shap_estimates_the_mean_of_integrated_gradients():
    network, x = tiny("vit_avg"), spotted(1)
    target, names = TARGET[:1], ("black", "glass")
    expected = [
        make_method("integrated_gradients", baseline=name)(network, x, target) for name in names
    ]
    found = make_method("gradient_shap", baselines=names, samples=20)(network, x, target)
    mean = sum(each.maps for each in expected) / 2
    off = (found.maps - mean) / found.standard_error
    # Points are shared by all pixels, so that their deviations go together.
    assert off.abs().max() < 5
    assert found.standard_error.max() < 0.5 * mean.abs().max()
    torch.testing.assert_close(found.reference, sum(each.reference for each in expected) / 2)
    # The gap is a sampling error as well, which more samples reduce.
    more = make_method("gradient_shap", baselines=names, samples=80)(network, x, target)
    assert more.standard_error.mean() < 0.75 * found.standard_error.mean()


def test_gradient_shap_on_a_linear_network_is_exact():
    network, x = classifier(Linear(bias=0.5)), images()
    attribution = make_method("gradient_shap", samples=2)(network, x, TARGET)
    starts = torch.stack([start_of(b, network, x) for b in ("black", "white", "glass", "blur")])
    expected = (network.model.weight[TARGET] * (x - starts.mean(0))).sum(1)
    torch.testing.assert_close(attribution.maps, expected.float())
    assert attribution.completeness_gap.max() < 1e-5
    assert attribution.standard_error.max() < 1e-12


def test_noise_explains_noisy_images():
    network, x = classifier(Linear()), images()
    noisy = make_method("gradient_shap", baselines=("black",), samples=1, noise=0.1, seed=3)
    chance = torch.Generator().manual_seed(3)
    copy = (x + 0.1 * torch.randn(3, 8, 8, generator=chance)).clamp(0, 1)
    expected = (network.model.weight[TARGET] * copy).sum(1).float()
    torch.testing.assert_close(noisy(network, x, TARGET).maps, expected)


def test_seeds_reproduce_and_differ():
    network, x = tiny("vit"), spotted(1)
    first, again, other = (
        make_method("gradient_shap", samples=2, seed=seed)(network, x, TARGET[:1]).maps
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_glass_is_each_images_own():
    network, x = classifier(Linear()), images()
    x[0, :, :4] = 0.95
    together = make_method("integrated_gradients", baseline="glass")(network, x, TARGET)
    alone = make_method("integrated_gradients", baseline="glass")(network, x[:1], TARGET[:1])
    assert torch.equal(together.maps[0], alone.maps[0])
    assert together.maps[0, :4].abs().max() < 1e-12  # glass is not different from glass


def test_an_encoding_is_put_before_the_way():
    """Half way between two encoded images is an encoded image: complements stay complements."""
    seen = []

    class Watch(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            seen.append(x.detach())
            return self.model(x)

    network = tiny("bcos_vit")
    watched = Classifier(Watch(network.model).eval(), network.encode)
    make_method("integrated_gradients", steps=3)(watched, spotted(), TARGET)
    assert len(seen) == 5
    for x in seen:
        torch.testing.assert_close(x[:, :3] + x[:, 3:], torch.ones_like(x[:, :3]))
