"""Relevance rules against loops over single contributions, and conservation over all families."""

import numpy as np
import pytest
import torch
from torch import nn

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.errors import UnsupportedMethodError
from tests.bcos_vit.attribution.families import SIDE, spotted, tiny

TARGET = torch.tensor([2, 0])
CNNS = ["resnet", "densenet", "vgg", "convnext"]
MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])


class Normalised(nn.Module):
    def forward(self, images):
        mean, std = (torch.from_numpy(each)[:, None, None] for each in (MEAN, STD))
        return (images - mean) / std


def network(bias=True):
    """On 1 x 1 images: each convolution is a matrix, and the second has inputs of both signs."""
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 1, bias=bias), nn.ReLU(), nn.Conv2d(5, 4, 1, bias=bias),
        nn.Conv2d(4, 4, 1, bias=bias), nn.Flatten(), nn.Linear(4, 2, bias=bias),
    )  # fmt: skip
    return Classifier(layers, Normalised()).double().eval()


# --- each rule as its paper writes it, contribution by contribution ------------------------------


def by_epsilon(a, w, b, relevance, eps):
    passed = np.zeros(len(a))
    for k, row in enumerate(w):
        z = sum(a[i] * row[i] for i in range(len(a))) + b[k]
        for i in range(len(a)):
            passed[i] += a[i] * row[i] / (z + eps * (1 if z >= 0 else -1)) * relevance[k]
    return passed


def by_gamma(a, w, b, relevance, gamma):
    passed = np.zeros(len(a))
    for k, row in enumerate(w):
        terms = [a[i] * row[i] for i in range(len(a))] + [b[k]]
        sign = 1 if sum(terms) > 0 else -1
        weighted = [t * (1 + gamma) if t * sign > 0 else t for t in terms]
        for i in range(len(a)):
            passed[i] += weighted[i] / sum(weighted) * relevance[k]
    return passed


def by_alpha_beta(a, w, b, relevance, alpha):
    passed = np.zeros(len(a))
    for k, row in enumerate(w):
        terms = [a[i] * row[i] for i in range(len(a))] + [b[k]]
        sign = 1 if sum(terms) > 0 else -1
        own = sum(t for t in terms if t * sign > 0)
        other = sum(t for t in terms if t * sign < 0)
        for i, t in enumerate(terms[:-1]):
            if t * sign > 0:
                passed[i] += (alpha if other else 1) * t / own * relevance[k]
            elif t:
                passed[i] -= (alpha - 1) * t / other * relevance[k]
    return passed


def by_box(a, w, relevance):
    low, high = -MEAN / STD, (1 - MEAN) / STD
    passed = np.zeros(len(a))
    for k, row in enumerate(w):
        over, under = row.clip(0), row.clip(max=0)
        terms = a * row - low * over - high * under
        passed += terms / terms.sum() * relevance[k]
    return passed


def by_flat(a, w, relevance):
    return np.full(len(a), sum(relevance) / len(a))


INNER = {
    "epsilon": (by_epsilon, 0.05),
    "gamma": (by_gamma, 0.3),
    "alpha_beta": (by_alpha_beta, 3.0),
}


@pytest.mark.parametrize("first", ["box", "flat", "same"])
@pytest.mark.parametrize("rule", INNER)
def test_rules_by_hand(rule, first):
    classifier = network()
    images = torch.rand(1, 3, 1, 1, dtype=torch.float64)
    inner, number = INNER[rule]
    settings = {"convolutions": rule, "first": first, "gamma": 0.3, "alpha": 3.0, "epsilon": 0.05}

    result = make_method("lrp", **settings)(classifier, images, torch.tensor([1]))

    state = {name: value.numpy().squeeze() for name, value in classifier.model.state_dict().items()}
    w, b = ([state[f"{i}.{kind}"] for i in (0, 2, 3, 5)] for kind in ("weight", "bias"))
    values = [(images.numpy().squeeze() - MEAN) / STD]
    for i, (weight, bias) in enumerate(zip(w, b, strict=True)):
        z = weight @ values[-1] + bias
        values.append(z.clip(0) if i == 0 else z)
    relevance = by_epsilon(values[3], w[3], b[3], [0, values[4][1]], 0.05)
    relevance = inner(values[2], w[2], b[2], relevance, number)
    relevance = inner(values[1], w[1], b[1], relevance, number)
    if first == "same":
        expected = inner(values[0], w[0], b[0], relevance, number).sum()
    else:
        outer = by_box if first == "box" else by_flat
        expected = outer(values[0], w[0], relevance).sum()
    assert result.maps.item() == pytest.approx(expected, rel=1e-9)
    assert result.completeness_gap.item() < 1e-12


@pytest.mark.parametrize("first", ["box", "flat", "same"])
@pytest.mark.parametrize("rule", INNER)
@pytest.mark.parametrize("family", CNNS)
def test_relevance_is_conserved_up_to_what_is_absorbed(family, rule, first):
    classifier = tiny(family)
    method = make_method("lrp", convolutions=rule, first=first)
    result = method(classifier, spotted(), TARGET)
    assert result.maps.shape == (2, SIDE, SIDE)
    size = result.maps.abs().sum((1, 2)) + result.logit.abs()
    size = size + sum(term.abs() for term in result.constants.values())
    assert (result.completeness_gap <= 1e-12 * size).all()
    assert set(result.constants) == {"absorbed"}


@pytest.mark.parametrize("family", CNNS)
def test_by_the_epsilon_rule_without_stabiliser_it_is_the_ledger(family):
    classifier = tiny(family)
    plain = make_method("lrp", convolutions="epsilon", first="same", epsilon=0.0)
    relevance = plain(classifier, spotted(), TARGET)
    ledger = make_method("ledger", zero="mean")(classifier, spotted(), TARGET)
    scale = float(ledger.maps.abs().max())
    torch.testing.assert_close(relevance.maps, ledger.maps, atol=1e-11 * scale, rtol=0)
    # What biases absorb is what they carry.
    torch.testing.assert_close(relevance.constants["absorbed"], ledger.constants["biases"])


def test_without_biases_nothing_is_absorbed():
    result = make_method("lrp", epsilon=0.0)(
        network(bias=False), torch.rand(2, 3, 1, 1, dtype=torch.float64), torch.tensor([0, 1])
    )
    torch.testing.assert_close(result.maps.sum((1, 2)), result.logit)
    assert result.constants.get("absorbed", torch.zeros(1)).abs().max() < 1e-12


def test_batch_norm_is_folded_into_the_convolution_before_it():
    norm = nn.BatchNorm2d(6)
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)  # scales of both signs
    norm.running_var.uniform_(0.5, 2)
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 2, groups=2, stride=2)
    end = [nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)]
    folded = nn.Conv2d(4, 6, 2, groups=2, stride=2)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        folded.weight.copy_(second.weight * scale[:, None, None, None])
        folded.bias.copy_((second.bias - norm.running_mean) * scale + norm.bias)
    images, target = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1])
    for rule in INNER:
        method = make_method("lrp", convolutions=rule)
        apart, together = (
            method(Classifier(nn.Sequential(*layers), Normalised()).double().eval(), images, target)
            for layers in (
                (first, nn.ReLU(), second, norm, *end),
                (first, nn.ReLU(), folded, *end),
            )
        )
        # The folded weights above were rounded to float32.
        torch.testing.assert_close(apart.maps, together.maps, rtol=1e-4, atol=1e-7)


def test_a_residual_sum_is_shared_in_proportion():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.Flatten()
            self.end = nn.Linear(3, 1)

        def forward(self, x):
            return self.end((x + self.conv(x)).flatten(1))

    model = Residual()
    classifier = Classifier(model, nn.Identity()).double().eval()
    images = torch.rand(1, 3, 1, 1, dtype=torch.float64)
    result = make_method("lrp", first="same", epsilon=0.0, gamma=0.5)(
        classifier, images, torch.tensor([0])
    )
    a = images.numpy().squeeze()
    w, b = (each.detach().numpy().squeeze() for each in (model.conv.weight, model.conv.bias))
    branch = w @ a + b
    end, end_bias = (each.detach().numpy() for each in (model.end.weight[0], model.end.bias))
    relevance = by_epsilon(a + branch, end[None], end_bias, [end @ (a + branch) + end_bias[0]], 0)
    shortcut = relevance * a / (a + branch)
    through = by_gamma(a, w, b, relevance * branch / (a + branch), 0.5)
    assert result.maps.item() == pytest.approx((shortcut + through).sum())


def test_a_first_layer_that_does_not_take_the_image_is_named():
    layers = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 2, 1), nn.Flatten())
    classifier = Classifier(layers, nn.Identity()).eval()
    images = torch.rand(1, 3, 2, 2)
    with pytest.raises(UnsupportedMethodError, match="'box' is for a layer that takes the image"):
        make_method("lrp")(classifier, images, torch.tensor([0]))
    make_method("lrp", first="same")(classifier, images, torch.tensor([0]))


def test_a_box_that_does_not_hold_all_colours_is_refused():
    class Product(nn.Module):
        def forward(self, images):
            return images * (1 - images)

    classifier = Classifier(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), Product()).eval()
    with pytest.raises(UnsupportedMethodError, match="outside of black and white"):
        make_method("lrp")(classifier, torch.rand(1, 3, 1, 1), torch.tensor([0]))


@pytest.mark.parametrize("family", ["vit", "vitc", "swin"])
def test_attention_is_refused(family):
    with pytest.raises(UnsupportedMethodError, match=r"lrp: .* is attention.*'attnlrp'"):
        make_method("lrp").check(tiny(family))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"convolutions": "zplus"}, "convolutions must be one of gamma, alpha_beta, epsilon"),
        ({"first": "w2"}, "first must be one of box, flat, same"),
        ({"gamma": -0.1}, "gamma must be finite and at least 0"),
        ({"alpha": 0.5}, "alpha must be finite and at least 1"),
        ({"epsilon": float("nan")}, "epsilon must be finite and at least 0"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ValueError, match=said):
        make_method("lrp", **settings)
