"""DeepLIFT and guided backprop against propagation place by place, and Captum where it is right."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.errors import UnsupportedMethodError
from tests.bcos_vit.attribution.families import Encoding, spotted, tiny

TARGET = torch.tensor([1, 0])
SIDE = 7


class Net(nn.Module):
    """Convolution, rectifier, pooling whose windows overlap, convolution, rectifier, classifier."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, 2, 1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv2 = nn.Conv2d(4, 3, 2)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            for each in self.parameters():
                each.copy_(torch.randn(each.shape, generator=generator))

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        return self.head(self.relu2(self.conv2(x)).flatten(1))


def net():
    return Net().double().eval()


def matrix(layer, shape):
    """A convolution as a matrix and what it adds, from unit images."""
    with torch.no_grad():
        zero = torch.zeros(1, *shape, dtype=torch.float64)
        offset = layer(zero).flatten()
        units = torch.eye(zero.numel(), dtype=torch.float64).unflatten(1, shape)
        return (layer(units).flatten(1) - offset).T.numpy(), offset.numpy()


def windows():
    """Flat indices in 4 x 4 of the windows of a pooling by 3, every 2, padded by 1."""
    for top in (-1, 1):
        for left in (-1, 1):
            yield [
                i * 4 + j
                for i in range(top, top + 3)
                for j in range(left, left + 3)
                if 0 <= i < 4 and 0 <= j < 4
            ]


def pooled(values):
    return np.array([max(v[i] for i in w) for v in values.reshape(4, 16) for w in windows()])


def rescale(model, x, start, label):
    """Multipliers of the rescale rule, ``(3, 7, 7)``, layer by layer."""
    (m1, c1), (m2, c2) = matrix(model.conv1, (3, SIDE, SIDE)), matrix(model.conv2, (4, 2, 2))
    layers = []
    for image in (x, start):
        a = m1 @ image.numpy().ravel() + c1
        b = np.maximum(a, 0)
        c = pooled(b)
        d = m2 @ c + c2
        layers.append((a, b, c, d))
    (a, b, c, d), (a0, b0, c0, d0) = layers
    multiplier = model.head.weight[label].detach().numpy()
    multiplier = multiplier * (np.maximum(d, 0) - np.maximum(d0, 0)) / (d - d0)
    multiplier = multiplier @ m2
    before = np.zeros((4, 16))
    for channel in range(4):
        for k, window in enumerate(windows()):
            n = channel * 4 + k
            v, v0 = b.reshape(4, 16)[channel], b0.reshape(4, 16)[channel]
            larger = max(c[n], c0[n])
            at = max(window, key=lambda i: v[i])
            at0 = at if v0[at] == c0[n] else max(window, key=lambda i: v0[i])
            for place, share in ((at, larger - c0[n]), (at0, c[n] - larger)):
                if share:
                    before[channel, place] += multiplier[n] * share / (v[place] - v0[place])
    before = before.ravel() * np.where(a == a0, a > 0, (b - b0) / np.where(a == a0, 1, a - a0))
    return (before @ m1).reshape(3, SIDE, SIDE)


@pytest.mark.parametrize("baseline", ["white", "blur"])
def test_deeplift_layer_by_layer(baseline):
    from bcos_vit.attribution.fillings import fill

    model, images = net(), torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    starts = fill(baseline, images)
    found = make_method("deeplift", baseline=baseline)(
        Classifier(model, nn.Identity()), images, TARGET
    )
    for n, label in enumerate(TARGET.tolist()):
        multipliers = rescale(model, images[n], starts[n], label)
        expected = (multipliers * (images[n] - starts[n]).numpy()).sum(0)
        np.testing.assert_allclose(found.maps[n], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        found.reference, model(starts).detach().gather(1, TARGET[:, None])[:, 0]
    )
    assert (found.completeness_gap < 1e-5).all()


@pytest.mark.parametrize("family", ["resnet", "densenet", "vgg"])
@pytest.mark.parametrize("baseline", ["black", "glass", "blur"])
def test_deeplift_sums_to_the_difference(family, baseline):
    found = make_method("deeplift", baseline=baseline)(tiny(family), spotted(2, 64), TARGET)
    difference = (found.logit - found.reference).abs()
    assert (found.completeness_gap < 1e-5 * difference + 1e-6 * found.maps.abs().max()).all()


@pytest.mark.parametrize("family", ["resnet", "densenet"])
def test_deeplift_as_captum_where_that_is_complete(family):
    captum = pytest.importorskip("captum.attr", exc_type=ImportError)
    classifier, images = tiny(family), spotted(2, 64)
    x = classifier.encode(images)
    start = torch.zeros_like(x)  # the same at each place, behind padding as well
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its hooks
        expected, delta = captum.DeepLift(classifier.model).attribute(
            x, start, TARGET, return_convergence_delta=True
        )
    assert delta.abs().max() < 1e-10
    maps = make_method("deeplift", baseline="zero")(classifier, images, TARGET).maps
    torch.testing.assert_close(maps, expected.sum(1).float(), rtol=1e-4, atol=1e-6)


def test_captum_loses_a_part_behind_overlapping_pooling():
    """Why its DeepLIFT is not used: what several windows share is counted once."""
    captum = pytest.importorskip("captum.attr", exc_type=ImportError)
    model, images = net(), torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    start = F.avg_pool2d(images, 3, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, delta = captum.DeepLift(model).attribute(
            images, start, TARGET, return_convergence_delta=True
        )
    assert delta.abs().max() > 1e-3


def guided(model, x, label):
    """The guided gradient, ``(3, 7, 7)``, layer by layer."""
    (m1, c1), (m2, c2) = matrix(model.conv1, (3, SIDE, SIDE)), matrix(model.conv2, (4, 2, 2))
    a = m1 @ x.numpy().ravel() + c1
    b = np.maximum(a, 0)
    d = m2 @ pooled(b) + c2
    slope = np.maximum(model.head.weight[label].detach().numpy(), 0) * (d > 0)
    slope = slope @ m2
    before = np.zeros((4, 16))
    for channel, v in enumerate(b.reshape(4, 16)):
        for k, window in enumerate(windows()):
            before[channel, max(window, key=lambda i, v=v: v[i])] += slope[channel * 4 + k]
    return ((np.maximum(before.ravel(), 0) * (a > 0)) @ m1).reshape(3, SIDE, SIDE)


def test_guided_backprop_layer_by_layer():
    model, images = net(), torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    maps = make_method("guided_backprop")(Classifier(model, nn.Identity()), images, TARGET).maps
    for n, label in enumerate(TARGET.tolist()):
        expected = np.abs(guided(model, images[n], label)).sum(0)
        np.testing.assert_allclose(maps[n], expected, rtol=1e-5, atol=1e-6)
    assert maps.max() > 0


@pytest.mark.parametrize("family", ["resnet", "densenet", "vgg"])
def test_guided_backprop_as_captum(family):
    captum = pytest.importorskip("captum.attr", exc_type=ImportError)
    classifier, images = tiny(family), spotted(2, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.GuidedBackprop(classifier.model).attribute(
            classifier.encode(images).requires_grad_(), TARGET
        )
    maps = make_method("guided_backprop")(classifier, images, TARGET).maps
    torch.testing.assert_close(maps, expected.detach().abs().sum(1).float())


class Functional(Net):
    """The same without modules for rectifiers but one, which runs twice."""

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv1(x)), 3, 2, padding=1)
        x = F.relu_(self.relu1(self.conv2(x)))
        return self.head(x.flatten(1))


def test_rectifiers_that_are_no_modules_or_run_twice_follow_the_rules():
    plain, other = net(), Functional().double().eval()
    images = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    for name in ("deeplift", "guided_backprop"):
        maps = [
            make_method(name)(Classifier(model, nn.Identity()), images, TARGET).maps
            for model in (plain, other)
        ]
        torch.testing.assert_close(*maps)


class Gated(Net):
    def forward(self, x):
        return super().forward(x) * x.mean((1, 2, 3))[:, None].sigmoid()


class Soft(Net):
    def forward(self, x):
        return super().forward(F.gelu(x))


@pytest.mark.parametrize(("network", "function"), [(Gated, "sigmoid|mul"), (Soft, "gelu")])
def test_functions_without_a_rule_are_refused_as_they_run(network, function):
    classifier = Classifier(network().double().eval(), nn.Identity())
    images = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64)
    for name in ("deeplift", "guided_backprop"):
        method = make_method(name)
        method.check(classifier)  # its modules do not show it
        with pytest.raises(UnsupportedMethodError, match=f"{name} .* calls ({function})"):
            method(classifier, images, TARGET[:1])


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("convnext", "'stages.0.blocks.0.mlp.act' is a GELU"),
        ("vit", "'blocks.0.mlp.act' is a GELU"),
        ("swin", "is a (GELU|Softmax)"),
        ("vitc", "is a GatedGelu"),
        ("bcos_resnet", "BcosResNet has no ReLU"),
        ("bcos_vit", "'blocks.0.attn' is a BcosAttention"),
    ],
)
def test_other_networks_are_refused_by_their_modules(family, reason):
    for name in ("deeplift", "guided_backprop"):
        with pytest.raises(UnsupportedMethodError, match=f"{name} has rules for ReLU.*{reason}"):
            make_method(name).check(tiny(family))


def test_deeplift_takes_encoded_complements():
    """A twin trained on six channels is a ReLU network like any other."""
    import timm

    model = timm.create_model("resnet18", in_chans=6, num_classes=2, layers=(1, 1, 1, 1)).eval()
    classifier = Classifier(model, Encoding("complement"))
    found = make_method("deeplift", baseline="white")(classifier, spotted(2, 64).float(), TARGET)
    assert found.completeness_gap.max() < 1e-4
