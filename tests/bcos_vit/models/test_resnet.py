"""BcosResNet: options do what they say, wrong ones are named, the conventional form is timm's."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from bcos_vit.explain import explain
from bcos_vit.layers import BcosConv2d, LayerKit, explanation_mode
from bcos_vit.models import create_model
from bcos_vit.models.resnet import BcosBottleneck
from tests.conftest import settle_statistics, unsettle
from tests.reference import Trace, array, batch_norm_matrix, bcos_conv_matrix

BOTTLENECK = {"block": "bottleneck"}
RESNEXT = {"block": "bottleneck", "groups": 4, "base_width": 8}


@pytest.fixture
def images():
    return torch.rand(2, 6, 12, 12, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_pool": "max"}, "global_pool must be .*got 'max'"),
        ({"global_pool": ""}, "goes with num_classes=0"),
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"max_out": 0}, "max_out must be at least 1, got 0"),
        ({"conventional": True, "max_out": 2}, "max_out must be 1 where weights keep"),
        ({"temperature": -1.0}, r"temperature must be positive, got -1\.0"),
        ({"num_classes": -1}, "num_classes must .*got -1"),
        ({"layers": (1, 1, 1)}, r"layers must .*got \(1, 1, 1\)"),
        ({"layers": (1, 1, 0, 1)}, r"layers must .*got \(1, 1, 0, 1\)"),
        ({"block": "wide"}, r"block must be one of \('basic', 'bottleneck'\), got 'wide'"),
        ({"groups": 2}, 'are for block="bottleneck", got 2 and 64'),
        ({"base_width": 128}, 'are for block="bottleneck", got 1 and 128'),
        (BOTTLENECK | {"groups": 0}, "groups and base_width must be at least 1, got 0 and 64"),
        (BOTTLENECK | {"base_width": 0}, "must be at least 1, got 1 and 0"),
        ({"encoding": "lab"}, "encoding must be one of .*got 'lab'"),
        ({"encoding": "rgb"}, "'rgb' makes 3 channels, in_chans is 6"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(make_resnet, options, message):
    with pytest.raises(ValueError, match=message):
        make_resnet(**options)


@pytest.mark.parametrize(("options", "convs"), [({}, 1 + 4 * 2 + 3 + 1), (RESNEXT, 1 + 4 * 4 + 1)])
def test_exponent_and_max_out_reach_every_layer(make_resnet, options, convs):
    model = make_resnet(b=1.25, max_out=2, **options)
    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert len(layers) == convs
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


def test_a_new_head_keeps_exponent_max_out_temperature_and_given_bias(make_resnet):
    model = make_resnet(b=1.25, max_out=2, temperature=3.0, logit_bias=0.5)
    model.reset_classifier(7)
    assert (model.fc.b, model.fc.max_out, model.fc.out_chans) == (1.25, 2, 7)
    assert model.logits.temperature == 3
    assert (model.logits.bias == 0.5).all()


@pytest.mark.parametrize(("options", "chans"), [({}, 512), (BOTTLENECK, 2048), (RESNEXT, 2048)])
def test_the_feature_map_is_left_unpooled_on_demand(make_resnet, images, options, chans):
    model = make_resnet(num_classes=0, global_pool="", **options)
    assert model.num_features == chans
    assert model(images).shape == (2, chans, 1, 1)


def test_stochastic_depth_grows_with_depth(make_resnet):
    model = make_resnet(drop_path_rate=0.3)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    found = [block.drop_path.drop_prob for stage in stages for block in stage]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("options", [{}, BOTTLENECK, {"conventional": True}])
def test_the_reductions_told_are_those_made(make_resnet, options):
    model = make_resnet(**options)
    x = torch.rand(1, 6, 64, 64, dtype=torch.float64)
    for info in model.feature_info:
        seen = []
        hook = model.get_submodule(info["module"]).register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(output.shape)
        )
        model(x)
        hook.remove()
        side = 64 // info["reduction"]
        assert seen == [(1, info["num_chs"], side, side)]


def test_conversion_to_synchronised_norms_changes_nothing(make_resnet, images):
    model = make_resnet()
    expected = model(images)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert torch.equal(converted(images), expected)


# --- bottlenecks --------------------------------------------------------------------------------


@pytest.mark.parametrize("in_chans", [8, 12])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("options", [{}, {"b": 1.5, "max_out": 2}])
def test_a_bottleneck_is_the_product_of_its_matrices(in_chans, stride, options):
    block = BcosBottleneck(in_chans, 12, stride, width=4, groups=2, kit=LayerKit(**options))
    unsettle(block).double().eval()
    x = torch.rand(1, in_chans, 4, 5, dtype=torch.float64)
    shape = tuple(x.shape[1:])

    def through(trace, shape, conv, norm, **geometry):
        matrix, shape = bcos_conv_matrix(
            array(conv.weight), trace.value.reshape(shape), b=conv.b, max_out=conv.max_out,
            **geometry,
        )  # fmt: skip
        norm = batch_norm_matrix(shape, array(norm.running_var), array(norm.weight))
        return trace.through(matrix).through(norm), shape

    branch, inner = through(Trace.of(array(x[0])), shape, block.conv1, block.bn1)
    branch, inner = through(
        branch, inner, block.conv2, block.bn2, stride=(stride, stride), padding=(1, 1), groups=2
    )
    branch, inner = through(branch, inner, block.conv3, block.bn3)
    expected = Trace.of(array(x[0]))
    if stride != 1 or in_chans != 12:
        expected, _ = through(
            expected, shape, block.downsample[0], block.downsample[1], stride=(stride, stride)
        )
    expected = expected.plus(branch)

    with explanation_mode():
        weights = torch.autograd.functional.jacobian(block, x)
    # Rounding of sums of some tens of products.
    np.testing.assert_allclose(array(block(x)).ravel(), expected.value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        array(weights).reshape(expected.matrix.shape), expected.matrix, rtol=0, atol=1e-12
    )


# --- conventional form --------------------------------------------------------------------------

TWINS = {
    "resnet18": "bcos_resnet18",
    "resnet50": "bcos_resnet50",
    "resnext50_32x4d": "bcos_resnext50_32x4d",
}


def unsettled_twin(name, **options):
    """timm's model in float64, its norms with scales, shifts, means and variances of their own."""
    twin = timm.create_model(name, **options).double()
    for norm in twin.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    return settle_statistics(twin, torch.rand(4, 3, 48, 48, dtype=torch.float64))


def folded(twin):
    """The twin's tensors as ours: batch norms' means within their biases, classifier 1 x 1."""
    state = twin.state_dict()
    for name, norm in twin.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            mean = state.pop(f"{name}.running_mean")
            state[f"{name}.bias"] = (
                norm.bias - mean * norm.weight / (norm.running_var + 1e-5).sqrt()
            )
    state["fc.weight"] = state["fc.weight"][..., None, None]
    return state


def conventional_from(name, twin, **options):
    """Our conventional form with the twin's weights; nothing left out on either side."""
    model = create_model(name, conventional=True, b=1.0, in_chans=3, **options).double().eval()
    missing, unexpected = model.load_state_dict(folded(twin), strict=False)
    assert all(key.startswith(("logits.", "homotopy")) for key in missing)
    assert not unexpected
    return model


@pytest.mark.parametrize("name", TWINS)
def test_conventional_form_at_exponent_one_is_the_twin(name):
    twin = unsettled_twin(name, num_classes=7)
    model = conventional_from(TWINS[name], twin, num_classes=7)
    # Sides that do not halve evenly show where padding and striding go.
    x = torch.rand(2, 3, 65, 50, dtype=torch.float64)
    with torch.no_grad():
        expected, features = twin(x), twin.forward_features(x)
        assert expected.std() > 0.1
        # Rounding through 16 to 50 layers.
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(model.forward_features(x), features, rtol=1e-9, atol=1e-10)


def test_conventional_feature_maps_are_the_twins():
    twin = unsettled_twin("resnet18", features_only=True)
    full = timm.create_model("resnet18", num_classes=5).double()
    full.load_state_dict(twin.state_dict(), strict=False)
    maps = create_model(
        "bcos_resnet18", conventional=True, b=1.0, in_chans=3, features_only=True
    ).double()
    missing, _ = maps.load_state_dict(folded(full), strict=False)
    assert not missing
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for found, expected in zip(maps.eval()(x), twin(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("options", [{}, RESNEXT])
def test_a_conventional_network_is_explained_by_its_gradient_at_exponent_one(
    make_resnet, images, options
):
    """ReLUs and maxima select; what they select is one matrix, and the gradient is that matrix."""
    model = make_resnet(conventional=True, b=1.0, **options)
    x = images.clone().requires_grad_()
    gradient = torch.autograd.grad(model(x)[:, 1].sum(), x)[0]
    torch.testing.assert_close(explain(model, images, 1).weights, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("b", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("options", [{}, RESNEXT])
def test_explanations_of_the_conventional_form_are_complete(make_resnet, images, options, b):
    explanation = explain(make_resnet(conventional=True, b=b, **options), images, 1)
    assert set(explanation.constants) == {"biases"}
    assert explanation.constants["biases"].abs().min() > 1e-3
    assert explanation.contributions.abs().sum() > 1e-3
    assert (explanation.bias == 0).all()
    assert explanation.completeness_gap.max() < 1e-9


def test_only_a_conventional_network_has_biases_activations_and_a_maximum(make_resnet):
    def parts(model):
        biases = {name.split(".")[-2] for name, _ in model.named_parameters() if "bias" in name}
        relus = sum(isinstance(module, nn.ReLU) for module in model.modules())
        return biases, relus, type(model.pool)

    assert parts(make_resnet(**BOTTLENECK)) == (set(), 0, nn.AvgPool2d)
    # Each downsampling's norm is called "1".
    assert parts(make_resnet(conventional=True, **BOTTLENECK)) == (
        {"bn1", "bn2", "bn3", "1", "fc"}, 1 + 4 * 3, nn.MaxPool2d,
    )  # fmt: skip
