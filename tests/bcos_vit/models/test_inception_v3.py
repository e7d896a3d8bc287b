"""BcosInceptionV3: its twin's layers and wiring, its effective matrix, options that hold."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bcos_vit.explain import explain
from bcos_vit.layers import BcosConv2d
from bcos_vit.models import BcosInceptionV3
from tests import twins
from tests.conftest import settle_statistics, unsettle


def make(**options):
    """One or two blocks of each kind; float64, nothing at its default."""
    defaults = {"depths": (1, 2, 2), "num_classes": 3}
    model = unsettle(BcosInceptionV3(**(defaults | options))).double()
    return settle_statistics(model, pictures(4))


def pictures(count=2, height=80, width=75):
    return torch.rand(count, 6, height, width, dtype=torch.float64)


# --- structure ----------------------------------------------------------------------------------


def test_layers_are_those_of_the_twin_under_the_same_names():
    model, twin = twins.both("bcos_inception_v3")
    assert twins.convolutions(model) == twins.convolutions(twin)
    assert twins.norms(model) == twins.norms(twin)
    assert twins.parameter_names(model) == twins.parameter_names(twin)
    assert not [key for key, _ in model.named_parameters() if key.endswith("bias")]


@pytest.mark.parametrize("size", [(299, 299), (75, 100)])
def test_feature_maps_have_the_shapes_of_the_twins(size):
    ours, theirs = twins.map_shapes("bcos_inception_v3", size)
    assert len(ours) == 5
    assert ours == theirs


def test_blocks_are_wired_like_the_twins(monkeypatch):
    """Both nets made linear and alike, they must agree: order of branches, pools, everything."""
    twin = twins.create_twin("bcos_inception_v3", in_chans=6, num_classes=3)
    model = twins.create_model("bcos_inception_v3", num_classes=3, b=1.0, logit_bias=0.0)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    weights = {key: value for key, value in twin.state_dict().items() if key in shapes}
    model.load_state_dict({k: v.view(shapes[k]) for k, v in weights.items()}, strict=False)
    for module in model.modules():
        if isinstance(module, BcosConv2d):
            module.unit_norm = False
    nn.init.zeros_(twin.fc.bias)
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            monkeypatch.setattr(module, "forward", lambda x: x)
    # Every max pool in it is 3 x 3 and strides by 2.
    monkeypatch.setattr(twin, "Pool1", nn.AvgPool2d(3, 2))
    monkeypatch.setattr(twin, "Pool2", nn.AvgPool2d(3, 2))
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)
    x = pictures(2, 107, 91)
    settle_statistics(model.double(), x)
    twin.double().eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            twin.get_buffer(key).copy_(value)
    expected = twin(x)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-12)


# --- explanations -------------------------------------------------------------------------------


def slow_scale(layer, x):
    """``|cos|^(b-1)`` of a convolution at every position, from patches laid out one by one."""
    left, _, top, _ = layer.pads
    patches = F.unfold(x, layer.kernel_size, padding=(top, left), stride=layer.stride)
    unit = F.normalize(layer.weight.flatten(1), dim=1)
    length = (patches.square().sum(1, keepdim=True) + 1e-6).sqrt()
    cosine = (unit @ patches / length).abs()
    # Where b < 2 the power is steep at 0, and layers keep a cosine off it.
    return cosine if layer.b == 2 else cosine.clamp_min(1e-6) ** (layer.b - 1)


@pytest.mark.parametrize("b", [2.0, 1.5])
def test_weights_are_the_network_with_its_scales_frozen(b):
    """Layers replaced by matrices taken at one image act on any other image as W(x) does."""
    model, image, other = make(b=b), pictures(1), pictures(1)
    frozen = {}

    def freeze(layer, inputs, output):
        frozen[layer] = slow_scale(layer, inputs[0]).view_as(output)

    def apply(layer, inputs, output):
        left, _, top, _ = layer.pads
        unit = F.normalize(layer.weight.flatten(1), dim=1).view_as(layer.weight)
        return F.conv2d(inputs[0], unit, None, layer.stride, (top, left)) * frozen[layer]

    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    with torch.no_grad():
        hooks = [layer.register_forward_hook(freeze) for layer in layers]
        model(image)
        for hook in hooks:
            hook.remove()
        hooks = [layer.register_forward_hook(apply) for layer in layers]
        found = model(other) - model.logits.bias
        for hook in hooks:
            hook.remove()
    for target in range(3):
        weights = explain(model, image, target).weights
        expected = (weights * other).sum()
        torch.testing.assert_close(found[0, target], expected, rtol=1e-9, atol=1e-12)


def test_explanations_of_the_full_depth_are_complete():
    model = unsettle(BcosInceptionV3(num_classes=3)).double()
    x = pictures(2, 75, 91)
    explanation = explain(settle_statistics(model, x), x, 1)
    assert explanation.constants == {}
    assert explanation.contributions.abs().sum() > 1e-3
    assert explanation.completeness_gap.max() < 1e-12


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_pool": "max"}, "global_pool must be .*got 'max'"),
        ({"global_pool": ""}, "goes with num_classes=0"),
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"max_out": 0}, "max_out must be at least 1, got 0"),
        ({"encoding": "cmyk"}, "encoding must be .*got 'cmyk'"),
        ({"depths": (3, 5)}, r"depths must be .*got \(3, 5\)"),
        ({"depths": (3, 0, 3)}, r"depths must be .*got \(3, 0, 3\)"),
        ({"depths": (4, 5, 3)}, r"depths must be .*got \(4, 5, 3\)"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_exponent_and_max_out_reach_every_layer():
    with torch.device("meta"):
        model = BcosInceptionV3(b=1.25, max_out=2)
    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert len(layers) == 94 + 1
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


def test_dropout_is_before_the_classifier():
    model, x = make(drop_rate=0.25), pictures()
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25]
    assert torch.equal(model(x), model(x))


def test_the_feature_map_is_left_unpooled_on_demand():
    model = make(num_classes=0, global_pool="")
    assert model(pictures(1, 139, 107)).shape == (1, model.num_features, 3, 2)


def test_images_that_would_vanish_are_refused():
    model = make()
    assert model(pictures(1, 75, 75)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"at least 75 px .* got 75 x 74"):
        model(pictures(1, 75, 74))
