"""BcosConvNeXt: options do what they say, wrong ones are named, the conventional form is timm's."""

import numpy as np
import pytest
import timm
import torch

from bcos_vit.explain import explain
from bcos_vit.layers import BcosBatchNorm2d, BcosConv2d, BcosPositionNorm2d
from bcos_vit.models import BcosConvNeXt, create_model
from tests.conftest import settle_statistics, unsettle
from tests.reference import Trace, array, batch_norm_matrix, bcos_conv_matrix, layer_norm_matrix


@pytest.fixture
def make_convnext():
    """Builder of a small B-cos ConvNeXt of three stages and four blocks, float64, in eval mode."""

    def make(**options) -> BcosConvNeXt:
        defaults = {"depths": (1, 2, 1), "dims": (4, 6, 8), "num_classes": 3}
        model = unsettle(BcosConvNeXt(**(defaults | options))).double()
        shape = (8, options.get("in_chans", 6), 16, 16)
        return settle_statistics(model, torch.rand(shape, dtype=torch.float64))

    return make


@pytest.fixture
def images():
    return torch.rand(2, 6, 16, 16, dtype=torch.float64)


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
        ({"depths": ()}, r"depths must be .*got \(\)"),
        ({"depths": (1, 0, 1)}, r"depths must be .*got \(1, 0, 1\)"),
        ({"dims": (4, 6)}, r"dims must be a width for each of 3 depths, got \(4, 6\)"),
        ({"dims": (4, 6, 0)}, r"dims must be .*got \(4, 6, 0\)"),
        ({"norm_layer": "layer"}, r"norm_layer must be one of .*got 'layer'"),
        ({"encoding": "lab"}, "encoding must be one of .*got 'lab'"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(make_convnext, options, message):
    with pytest.raises(ValueError, match=message):
        make_convnext(**options)


def test_exponent_and_max_out_reach_every_layer(make_convnext):
    model = make_convnext(b=1.25, max_out=2)
    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert len(layers) == 1 + 2 + 4 * 3 + 1
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


@pytest.mark.parametrize(
    ("norm_layer", "kind", "eps"),
    [("position", BcosPositionNorm2d, 1e-6), ("batch", BcosBatchNorm2d, 1e-5)],
)
def test_the_norm_asked_for_is_everywhere_with_its_published_epsilon(
    make_convnext, norm_layer, kind, eps
):
    model = make_convnext(norm_layer=norm_layer)
    norms = {name: module for name, module in model.named_modules() if hasattr(module, "eps")}
    assert len(norms) == 1 + 2 + 4 + 1
    assert {(type(norm), norm.eps) for norm in norms.values()} == {(kind, eps)}


def test_widths_and_strides_are_the_published_ones():
    model = BcosConvNeXt()
    assert (model.stem[0].kernel_size, model.stem[0].stride) == ((4, 4), (4, 4))
    for stage, dim in zip(model.stages, (96, 192, 384, 768), strict=True):
        block = stage.blocks[0]
        assert (block.conv_dw.groups, block.conv_dw.kernel_size) == (dim, (7, 7))
        assert (block.mlp.fc1.out_chans, block.mlp.fc2.out_chans) == (4 * dim, dim)
    for stage in model.stages[1:]:
        assert (stage.downsample[1].kernel_size, stage.downsample[1].stride) == ((2, 2), (2, 2))
    assert [len(stage.blocks) for stage in model.stages] == [3, 3, 9, 3]


def test_scales_of_branches_start_at_a_millionth_or_are_left_out(make_convnext):
    scales = [block.gamma for stage in BcosConvNeXt((1,), (8,)).stages for block in stage.blocks]
    assert [scale.tolist() for scale in scales] == [pytest.approx([1e-6] * 8)]
    model = make_convnext(ls_init_value=None)
    assert not any("gamma" in name for name, _ in model.named_parameters())


def test_a_new_head_keeps_exponent_max_out_temperature_and_given_bias(make_convnext):
    model = make_convnext(b=1.25, max_out=2, temperature=3.0, logit_bias=0.5)
    model.reset_classifier(7)
    assert (model.head.b, model.head.max_out, model.head.out_chans) == (1.25, 2, 7)
    assert model.logits.temperature == 3
    assert (model.logits.bias == 0.5).all()


def test_stochastic_depth_grows_with_depth(make_convnext):
    model = make_convnext(drop_path_rate=0.3)
    found = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3])


def test_the_reductions_told_are_those_made(make_convnext):
    model = make_convnext()
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


# --- the order of norm, classifier and pooling --------------------------------------------------


def test_a_logit_is_the_mean_of_local_logits(make_convnext):
    model = make_convnext(logit_bias=-0.5)
    features = model.forward_features(torch.rand(1, 6, 32, 32, dtype=torch.float64))
    assert features.shape == (1, 8, 2, 2)
    local = [model.head(features[..., i : i + 1, j : j + 1]) for i in range(2) for j in range(2)]
    expected = torch.stack(local).mean(0)[..., 0, 0] - 0.5
    torch.testing.assert_close(model.forward_head(features), expected, rtol=0, atol=1e-12)


def test_norm_and_classifier_may_come_after_pooling(make_convnext):
    model = make_convnext(head_norm_first=False, logit_bias=-0.5)
    features = model.forward_features(torch.rand(1, 6, 32, 32, dtype=torch.float64))
    pooled = model.norm(features.mean((2, 3), keepdim=True))
    expected = model.head(pooled)[..., 0, 0] - 0.5
    torch.testing.assert_close(model.forward_head(features), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        model.forward_head(features, pre_logits=True), pooled.flatten(1), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("head_norm_first", [True, False])
def test_the_normed_feature_map_is_left_unpooled_on_demand(make_convnext, head_norm_first):
    model = make_convnext(num_classes=0, global_pool="", head_norm_first=head_norm_first)
    x = torch.rand(1, 6, 32, 32, dtype=torch.float64)
    assert torch.equal(model(x), model.norm(model.stages(model.stem(x))))
    assert model(x).shape == (1, 8, 2, 2)


# --- W(x) ---------------------------------------------------------------------------------------


def norm_matrix(norm, value, shape):
    """Matrix of either norm on a flattened ``(chans, height, width)`` feature map."""
    weight = array(norm.weight)
    if isinstance(norm, BcosBatchNorm2d):
        return batch_norm_matrix(shape, array(norm.running_var), weight)
    chans, area = shape[0], shape[1] * shape[2]
    matrix = np.zeros((chans, area, chans, area))
    for place in range(area):
        x = value.reshape(chans, area)[:, place]
        matrix[:, place, :, place] = layer_norm_matrix(x, weight, eps=1e-6)
    return matrix.reshape(chans * area, chans * area)


def convnext_evidence(model, image):
    """Trace of a B-cos ConvNeXt's logits before temperature and bias at one image."""

    def conv(trace, shape, layer, stride=1, padding=0, groups=1):
        matrix, shape = bcos_conv_matrix(
            array(layer.weight), trace.value.reshape(shape), stride=(stride, stride),
            padding=(padding, padding), groups=groups, b=layer.b, max_out=layer.max_out,
        )  # fmt: skip
        return trace.through(matrix), shape

    def norm(trace, shape, layer):
        return trace.through(norm_matrix(layer, trace.value, shape))

    trace, shape = conv(Trace.of(image), image.shape, model.stem[0], stride=4)
    trace = norm(trace, shape, model.stem[1])
    for i, stage in enumerate(model.stages):
        if i > 0:
            trace = norm(trace, shape, stage.downsample[0])
            trace, shape = conv(trace, shape, stage.downsample[1], stride=2)
        for block in stage.blocks:
            branch, _ = conv(trace, shape, block.conv_dw, padding=3, groups=shape[0])
            branch = norm(branch, shape, block.norm)
            branch, wide = conv(branch, shape, block.mlp.fc1)
            branch, _ = conv(branch, wide, block.mlp.fc2)
            gamma = np.repeat(array(block.gamma), shape[1] * shape[2])
            trace = trace.plus(branch.through(np.diag(gamma)))
    area = shape[1] * shape[2]

    def pool(trace, chans):
        return trace.through(np.kron(np.eye(chans), np.full((1, area), 1 / area)))

    if model.head_norm_first:
        trace, shape = conv(norm(trace, shape, model.norm), shape, model.head)
        return pool(trace, shape[0])
    trace, shape = pool(trace, shape[0]), (shape[0], 1, 1)
    return conv(norm(trace, shape, model.norm), shape, model.head)[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_layer": "batch"},
        {"b": 1.5, "max_out": 2, "temperature": 2.0},
        {"head_norm_first": False},
    ],
)
def test_it_is_the_product_of_its_matrices(make_convnext, options):
    model = make_convnext(**options)
    x = torch.rand(1, 6, 16, 24, dtype=torch.float64)
    trace, temperature = convnext_evidence(model, array(x[0])), options.get("temperature", 1.0)
    for target in range(3):
        explanation = explain(model, x[0], target)
        expected = trace.matrix[target].reshape(x.shape[1:]) / temperature
        largest = np.abs(expected).max()
        assert largest > 1e-6
        np.testing.assert_allclose(
            array(explanation.weights), expected, rtol=0, atol=1e-9 * largest
        )
        logit = trace.value[target] / temperature + array(explanation.bias)
        np.testing.assert_allclose(array(explanation.logit), logit, rtol=0, atol=1e-10)


# --- conventional form --------------------------------------------------------------------------


def unsettled_twin(**options):
    """timm's ConvNeXt-T in float64, no scale or bias at its start, branches of the size of x."""
    twin = timm.create_model("convnext_tiny", **options).double().eval()
    for name, parameter in twin.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
        elif parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return twin


def conventional_from(twin, **options):
    """Our conventional form with the twin's tensors: classifier renamed, linear layers 1 x 1."""
    model = create_model(
        "bcos_convnext_tiny", conventional=True, b=1.0, in_chans=3, **options
    ).double()
    names = {"head.fc.": "head.", "head.norm.": "norm.", "norm_pre.": "norm."}
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    state = {}
    for key, value in twin.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new)
        state[key] = value.reshape(shapes[key])
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert all(key.startswith(("logits.", "homotopy")) for key in missing)
    assert not unexpected
    return model.eval()


@pytest.mark.parametrize("head_norm_first", [False, True])
@pytest.mark.parametrize("conv_mlp", [False, True])
def test_conventional_form_at_exponent_one_is_the_twin(head_norm_first, conv_mlp):
    options = {"num_classes": 7, "head_norm_first": head_norm_first, "depths": (1, 1, 2, 1)}
    twin = unsettled_twin(conv_mlp=conv_mlp, **options)
    model = conventional_from(twin, **options)
    # Sides that do not divide evenly show what is left out at borders.
    x = torch.rand(2, 3, 70, 45, dtype=torch.float64)
    with torch.no_grad():
        expected = twin(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-10)


def test_conventional_form_of_full_depth_is_the_twin():
    twin = unsettled_twin()
    model = conventional_from(twin, head_norm_first=False)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), twin(x), rtol=1e-9, atol=1e-10)
        features = model.forward_features(x)
        torch.testing.assert_close(features, twin.forward_features(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("norm_layer", ["position", "batch"])
@pytest.mark.parametrize("head_norm_first", [True, False])
@pytest.mark.parametrize("b", [1.0, 1.5, 2.0])
def test_explanations_of_the_conventional_form_are_complete(
    make_convnext, images, norm_layer, head_norm_first, b
):
    model = make_convnext(
        conventional=True, b=b, norm_layer=norm_layer, head_norm_first=head_norm_first
    )
    explanation = explain(model, images, 1)
    assert set(explanation.constants) == {"biases"}
    assert explanation.constants["biases"].abs().min() > 1e-3
    assert explanation.contributions.abs().sum() > 1e-3
    assert (explanation.bias == 0).all()
    assert explanation.completeness_gap.max() < 1e-9


@pytest.mark.parametrize("norm_layer", ["position", "batch"])
@pytest.mark.parametrize("head_norm_first", [True, False])
def test_explanations_of_the_bcos_form_are_complete_without_constants(
    make_convnext, images, norm_layer, head_norm_first
):
    model = make_convnext(norm_layer=norm_layer, head_norm_first=head_norm_first)
    explanation = explain(model, images, 1)
    assert explanation.constants == {}
    assert explanation.contributions.abs().sum() > 1e-3
    assert explanation.completeness_gap.max() < 1e-12
