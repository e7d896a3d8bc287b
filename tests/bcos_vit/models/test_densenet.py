"""BcosDenseNet: its twin's layers, the product of its matrices, options that hold."""

from math import prod

import numpy as np
import pytest
import torch

from bcos_vit.explain import explain
from bcos_vit.layers import BcosConv2d
from bcos_vit.models import BcosDenseNet
from tests import twins
from tests.conftest import settle_statistics, unsettle
from tests.reference import Trace, array, average_pool_matrix, batch_norm_matrix, bcos_conv_matrix

VARIANTS = [f"bcos_densenet{depth}" for depth in (121, 161, 169, 201)]


def make(**options):
    """Two blocks, of two layers and one, two channels each; float64, nothing at its default."""
    defaults = {"growth_rate": 2, "bn_size": 2, "block_config": (2, 1), "num_classes": 3}
    model = unsettle(BcosDenseNet(**(defaults | options))).double()
    return settle_statistics(model, pictures(4, 32, 32))


def pictures(count=2, height=11, width=9):
    return torch.rand(count, 6, height, width, dtype=torch.float64)


# --- structure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_are_those_of_the_twin_under_the_same_names(name):
    model, twin = twins.both(name)
    assert twins.convolutions(model) == twins.convolutions(twin)
    assert twins.norms(model) == twins.norms(twin)
    assert twins.parameter_names(model) == twins.parameter_names(twin)
    assert not [key for key, _ in model.named_parameters() if key.endswith("bias")]


@pytest.mark.parametrize("size", [(224, 224), (75, 100)])
def test_feature_maps_have_the_shapes_of_the_twins(size):
    ours, theirs = twins.map_shapes("bcos_densenet121", size)
    assert len(ours) == 5
    assert ours == theirs


# --- explanations -------------------------------------------------------------------------------


def conv(trace, layer, shape, stride=1, padding=0):
    matrix, out = bcos_conv_matrix(
        array(layer.weight), trace.value.reshape(shape), stride=(stride, stride),
        padding=(padding, padding), b=layer.b, max_out=layer.max_out,
    )  # fmt: skip
    return trace.through(matrix), out


def norm(trace, layer, shape):
    return trace.through(batch_norm_matrix(shape, array(layer.running_var), array(layer.weight)))


def side_by_side(traces):
    return Trace(
        np.concatenate([trace.value for trace in traces]),
        np.concatenate([trace.matrix for trace in traces]),
        np.concatenate([trace.offset for trace in traces]),
    )


def dense_block(trace, block, shape):
    """All that a block's layers have seen and added; channels come first, so they append."""
    features = [trace]
    for layer in block.values():
        inner = side_by_side(features)
        now = (len(inner.value) // prod(shape[1:]), *shape[1:])
        inner, now = conv(norm(inner, layer.norm1, now), layer.conv1, now)
        inner, now = conv(norm(inner, layer.norm2, now), layer.conv2, now, padding=1)
        features.append(inner)
    together = side_by_side(features)
    return together, (len(together.value) // prod(shape[1:]), *shape[1:])


def pooled(trace, shape, kernel, stride, padding):
    matrix, out = average_pool_matrix(shape, kernel, stride, padding)
    return trace.through(matrix), out


def evidence(model, image):
    """Trace of the logits before temperature and bias, for two blocks."""
    parts = model.features
    trace, shape = conv(Trace.of(image), parts.conv0, image.shape, stride=2, padding=3)
    trace, shape = pooled(norm(trace, parts.norm0, shape), shape, 3, 2, 1)
    trace, shape = dense_block(trace, parts.denseblock1, shape)
    trace, shape = conv(norm(trace, parts.transition1.norm, shape), parts.transition1.conv, shape)
    trace, shape = pooled(trace, shape, 2, 2, 0)
    trace, shape = dense_block(trace, parts.denseblock2, shape)
    trace, shape = conv(norm(trace, parts.norm5, shape), model.classifier, shape)
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
    model = unsettle(BcosDenseNet(num_classes=3)).double()
    x = torch.rand(2, 6, 48, 40, dtype=torch.float64)
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
        ({"block_config": ()}, r"block_config must .*got \(\)"),
        ({"block_config": (2, 0)}, r"block_config must .*got \(2, 0\)"),
        ({"growth_rate": 0}, "growth_rate and bn_size must .*got 0 and 2"),
        ({"bn_size": 0}, "growth_rate and bn_size must .*got 2 and 0"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_exponent_and_max_out_reach_every_layer():
    model = make(b=1.25, max_out=2)
    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert len(layers) == 1 + 2 * 3 + 1 + 1
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


def test_dropout_is_where_it_was_asked_for():
    model = make(drop_rate=0.25, proj_drop_rate=0.125)
    found = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert found == [0.125, 0.125, 0.125, 0.25]
    x = pictures(4, 16, 16)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_the_feature_map_is_left_unpooled_on_demand():
    model = make(num_classes=0, global_pool="")
    assert model(pictures(2, 32, 24)).shape == (2, model.num_features, 4, 3)


@pytest.mark.parametrize(("block_config", "least"), [((1,), 1), ((1, 1), 5), ((1, 1, 1, 1), 29)])
def test_images_that_would_vanish_are_refused(block_config, least):
    model = make(block_config=block_config, num_classes=0).eval()
    assert model(pictures(1, least, least)).shape == (1, model.num_features)
    if least > 1:
        with pytest.raises(ValueError, match=f"at least {least} px .* got 40 x {least - 1}"):
            model(pictures(1, 40, least - 1))


def test_recomputed_layers_store_less():
    model, x = make(block_config=(6, 6)).train(), pictures(4, 32, 32)

    def stored():
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.setdefault(t.data_ptr(), t.nbytes) and t, lambda t: t
        ):
            model(x)
        return sum(sizes.values())

    before = stored()
    model.set_grad_checkpointing()
    assert stored() < before / 2
