"""Gradients times inputs against arithmetic, finite differences and Captum."""

import pytest
import torch
from torch import nn

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.attribution.gradients import Spread
from tests.bcos_vit.attribution.families import Encoding, spotted, tiny
from tests.bcos_vit.attribution.networks import Linear, classifier, images

TARGET = torch.tensor([1, 0])


class Square(nn.Module):
    """Logits ``(sum of x^2, sum of x^3)``."""

    def forward(self, x):
        return torch.stack([(x**2).sum((1, 2, 3)), (x**3).sum((1, 2, 3))], 1)


def test_on_a_linear_network_both_are_its_contributions():
    linear, x = Linear(), images()
    expected = (linear.weight[TARGET] * x).sum(1).float()
    for name in ("input_x_gradient", "smoothgrad"):
        attribution = make_method(name)(classifier(linear), x, TARGET)
        torch.testing.assert_close(attribution.maps, expected)
    assert (
        make_method("input_x_gradient")(classifier(linear), x, TARGET).completeness_gap.max() < 1e-6
    )


def test_the_gap_is_what_the_product_misses():
    x = images()
    attribution = make_method("input_x_gradient")(classifier(Square()), x, torch.tensor([0, 1]))
    # Products are 2 x^2 and 3 x^3, once and twice too much.
    torch.testing.assert_close(
        attribution.completeness_gap,
        attribution.logit * torch.tensor([1.0, 2.0], dtype=torch.float64),
        rtol=1e-6,  # maps are float32
        atol=0,
    )


@pytest.mark.parametrize("family", ["swin", "bcos_resnet"])
def test_input_x_gradient_by_finite_differences(family):
    """Summed over a square of pixels it is how the logit changes as their channels are scaled."""
    network = tiny(family)
    x = network.encode(spotted())
    maps = make_method("input_x_gradient")(network, spotted(), TARGET).maps

    def logit(scale):
        scaled = x.clone()
        scaled[:, :, 8:16, 8:16] *= scale
        return network.model(scaled).gather(1, TARGET[:, None])[:, 0]

    step = 1e-5
    slope = (logit(1 + step) - logit(1 - step)) / (2 * step)
    total = maps.double()[:, 8:16, 8:16].sum((1, 2))
    torch.testing.assert_close(total, slope.detach(), rtol=1e-4, atol=1e-7)


def test_as_captum():
    captum = pytest.importorskip("captum.attr", exc_type=ImportError)
    network = tiny("vit")
    x = network.encode(spotted())
    expected = captum.InputXGradient(network.model).attribute(x.clone().requires_grad_(), TARGET)
    maps = make_method("input_x_gradient")(network, spotted(), TARGET).maps
    torch.testing.assert_close(maps, expected.detach().sum(1).float())


def test_smoothgrad_is_the_mean_over_noisy_rgb_images():
    network, x = tiny("bcos_vit"), spotted()
    samples, noise = 3, 0.2
    chance = torch.Generator().manual_seed(5)
    slopes = []
    for _ in range(samples):
        drawn = torch.randn(3, 32, 32, generator=chance)
        copy = network.encode((x + noise * drawn).clamp(0, 1)).detach().requires_grad_()
        # noise in RGB keeps complements complements
        torch.testing.assert_close(copy[:, :3] + copy[:, 3:], torch.ones_like(x))
        logits = network.model(copy).gather(1, TARGET[:, None])
        slopes.append(torch.autograd.grad(logits.sum(), copy)[0])
    products = torch.stack([(network.encode(x) * slope).sum(1) for slope in slopes])

    settings = {"samples": samples, "noise": noise, "seed": 5}
    signed = make_method("smoothgrad", **settings)(network, x, TARGET)
    torch.testing.assert_close(signed.maps, products.mean(0).float())
    error = products.std(0) / samples**0.5
    torch.testing.assert_close(signed.standard_error, error.float())
    size = make_method("smoothgrad", times_input=False, **settings)
    assert not size.is_signed
    assert size(network, x, TARGET).standard_error is None
    expected = torch.stack(slopes).mean(0).abs().sum(1).float()
    torch.testing.assert_close(size(network, x, TARGET).maps, expected)


def test_without_noise_smoothgrad_is_input_x_gradient():
    network, x = tiny("convnext"), spotted()
    smooth = make_method("smoothgrad", noise=0.0, samples=1)(network, x, TARGET)
    plain = make_method("input_x_gradient")(network, x, TARGET)
    assert torch.equal(smooth.maps, plain.maps)
    assert smooth.standard_error is None


def test_seeds_reproduce_and_differ():
    network, x = tiny("resnet"), spotted()
    first, again, other = (
        make_method("smoothgrad", samples=2, seed=seed)(network, x, TARGET).maps
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_single_precision_is_enough():
    network = tiny("resnet")
    double = make_method("input_x_gradient")(network, spotted(), TARGET).maps
    single = Classifier(network.model.float(), Encoding("rgb"))
    maps = make_method("input_x_gradient")(single, spotted().float(), TARGET).maps
    torch.testing.assert_close(maps, double, atol=1e-4 * double.abs().max().item(), rtol=0)


def test_mean_and_error_of_maps_that_come_one_by_one():
    maps = torch.rand(7, 2, 3, 3, dtype=torch.float64) + 1e6  # no cancellation
    spread = Spread()
    for each in maps:
        spread.add(each)
    torch.testing.assert_close(spread.mean, maps.mean(0))
    torch.testing.assert_close(
        spread.standard_error, (maps.std(0) / 7**0.5).float(), rtol=1e-5, atol=0
    )
