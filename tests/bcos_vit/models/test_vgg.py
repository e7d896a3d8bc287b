"""BcosVGG: its twin's layers, the product of its matrices, options that hold."""

from math import prod

import numpy as np
import pytest
import torch
from timm.models import group_parameters
from torch import nn

from bcos_vit.explain import explain
from bcos_vit.layers import BcosBatchNorm2d, BcosConv2d
from bcos_vit.models import BcosVGG
from tests import twins
from tests.conftest import settle_statistics, unsettle
from tests.reference import Trace, array, average_pool_matrix, batch_norm_matrix, bcos_conv_matrix

VARIANTS = [f"bcos_vgg{depth}_bnu" for depth in (11, 13, 16, 19)]


def make(**options):
    """Two stages, of one convolution and two, few channels; float64, nothing at its default."""
    defaults = {"stages": ((3,), (2, 4)), "head_hidden_size": 5, "num_classes": 3}
    model = unsettle(BcosVGG(**(defaults | options))).double()
    return settle_statistics(model, pictures(8, 12, 12))


def pictures(count=2, height=9, width=6):
    return torch.rand(count, 6, height, width, dtype=torch.float64)


# --- structure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_are_those_of_the_twin(name):
    model, twin = twins.both(name)
    expected = twins.convolutions(twin)
    # The first fully connected layer keeps the map's size here.
    assert expected[-3] == ((4096, 512, 7, 7), (1, 1), (0, 0))
    expected[-3] = ((4096, 512, 7, 7), (1, 1), (3, 3))
    assert twins.convolutions(model) == expected
    assert twins.norms(model) == twins.norms(twin)
    assert not [key for key, _ in model.named_parameters() if key.endswith("bias")]


@pytest.mark.parametrize("size", [(224, 224), (70, 100)])
def test_feature_maps_have_the_shapes_of_the_twins(size):
    ours, theirs = twins.map_shapes("bcos_vgg13_bnu", size)
    assert len(ours) == 6
    assert ours == theirs


def test_widths_before_and_after_the_fully_connected_layers_are_told():
    model, x = make(), pictures()
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, 2, 1) == (2, 4, 2, 1)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size) == (2, 5)


# --- explanations -------------------------------------------------------------------------------


def evidence(model, image):
    """Trace of the logits before temperature and bias: one layer after the other."""
    trace, shape = Trace.of(image), image.shape
    head = [module for module in model.pre_logits if isinstance(module, BcosConv2d)]
    for layer in [*model.features, *head, model.head]:
        if isinstance(layer, BcosConv2d):
            padding = layer.weight.shape[-1] // 2
            matrix, shape = bcos_conv_matrix(
                array(layer.weight), trace.value.reshape(shape),
                padding=(padding, padding), b=layer.b, max_out=layer.max_out,
            )  # fmt: skip
        elif isinstance(layer, BcosBatchNorm2d):
            matrix = batch_norm_matrix(shape, array(layer.running_var), array(layer.weight))
        else:
            matrix, shape = average_pool_matrix(shape, 2, 2, 0)
        trace = trace.through(matrix)
    area = prod(shape[1:])
    return trace.through(np.kron(np.eye(shape[0]), np.full((1, area), 1 / area)))


@pytest.mark.parametrize(
    "options", [{}, {"b": 1.5}, {"max_out": 2, "temperature": 2.0, "logit_bias": 0.7}]
)
def test_weights_are_the_product_of_the_layers_matrices(options):
    model, x = make(**options), pictures(1)
    trace = evidence(model, array(x[0]))
    for target in range(3):
        explanation = explain(model, x[0], target)
        expected = trace.matrix[target].reshape(x[0].shape) / array(model.logits.temperature)
        largest = np.abs(expected).max()
        assert largest > 1e-6
        # float64 sums of a few hundred terms
        np.testing.assert_allclose(
            array(explanation.weights), expected, rtol=0, atol=1e-10 * largest
        )
        assert explanation.completeness_gap < 1e-12


def test_explanations_of_the_full_depth_are_complete():
    model = unsettle(BcosVGG(head_hidden_size=64, num_classes=3)).double()
    x = torch.rand(2, 6, 64, 40, dtype=torch.float64)
    explanation = explain(settle_statistics(model, x), x, 1)
    assert explanation.constants == {}
    share = explanation.contributions.abs().sum((1, 2))
    assert share.min() > 0
    # The sum is rounded where it meets a logit bias of -3.
    assert explanation.completeness_gap.max() < 1e-12 * (3 + share.max())


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_pool": "max"}, "global_pool must be .*got 'max'"),
        ({"global_pool": ""}, "goes with num_classes=0"),
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"max_out": 0}, "max_out must be at least 1, got 0"),
        ({"encoding": "cmyk"}, "encoding must be .*got 'cmyk'"),
        ({"stages": ()}, r"stages must .*got \(\)"),
        ({"stages": ((4,), ())}, r"stages must .*got \(\(4,\), \(\)\)"),
        ({"stages": ((4,), (4, 0))}, r"stages must .*got \(\(4,\), \(4, 0\)\)"),
        ({"head_hidden_size": 0}, "head_hidden_size must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_exponent_and_max_out_reach_every_layer():
    model = make(b=1.25, max_out=2)
    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert len(layers) == 3 + 3
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


def test_dropout_follows_both_fully_connected_layers():
    model, x = make(drop_rate=0.25), pictures()
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert found == [0.25, 0.25]
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_the_feature_map_is_left_unpooled_on_demand():
    assert make(num_classes=0, global_pool="")(pictures()).shape == (2, 5, 2, 1)


def test_images_that_would_vanish_are_refused():
    model = make()
    assert model(pictures(1, 4, 4)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"at least 4 px .* got 3 x 9"):
        model(pictures(1, 3, 9))


@pytest.mark.parametrize(
    ("coarse", "expected"),
    [
        (False, {"0": 0, "1": 0, "3": 1, "4": 1, "5": 2, "6": 2, "fc1": 3, "fc2": 4, "head": 5}),
        (True, {"0": 0, "1": 0, "3": 1, "4": 1, "5": 1, "6": 1, "fc1": 2, "fc2": 2, "head": 3}),
    ],
)
def test_a_norm_is_grouped_with_its_convolution(coarse, expected):
    model = make()
    found = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    assert {name.split(".")[-2]: depth for name, depth in found.items()} == expected
