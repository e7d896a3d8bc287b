"""BcosSwinTransformer: the product of its matrices, timm's network at b = 1, options that hold."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from bcos_vit.explain import explain
from bcos_vit.layers import BcosLinear, BcosWindowAttention
from bcos_vit.models import BcosSwinTransformer, create_model
from tests.conftest import unsettle
from tests.reference import array, swin_logits

VARIANTS = [f"bcos_swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")]


def make(**options):
    """Two stages of two blocks, eight wide at first, float64, nothing left at its default."""
    defaults = {
        "img_size": 16, "patch_size": 2, "num_classes": 3, "embed_dim": 8, "depths": (2, 2),
        "num_heads": (2, 4), "window_size": 3, "mlp_ratio": 2.0,
    }  # fmt: skip
    return shaken(BcosSwinTransformer(**(defaults | options)))


def shaken(model):
    for name, parameter in unsettle(model).named_parameters():
        if "relative_position_bias_table" in name:
            nn.init.normal_(parameter)
        elif name.endswith(".bias"):
            nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def pictures(count=2, size=(16, 16), chans=6):
    return torch.rand(count, chans, *size, dtype=torch.float64)


FORMS = {
    "bcos": {},
    "bcos, norm before pooling": {"fc_norm": False},
    "bcos, learnt branch scales": {"init_values": 0.1},
    "conventional": {"conventional": True},
    "conventional, norm after pooling": {"conventional": True, "fc_norm": True},
    "conventional, b 1": {"conventional": True, "b": 1.0},
}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


# --- explanations -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (10, 14)])  # the latter pads windows and squares
def test_explanations_are_complete(form, size):
    explanation = explain(make(**form), pictures(size=size), 1)
    assert set(explanation.constants) == ({"biases"} if "conventional" in form else set())
    assert explanation.contributions.abs().sum() > 1e-3
    assert explanation.completeness_gap.max() < 1e-10


def test_only_biases_are_constants_of_a_conventional_network():
    model = make(conventional=True)
    assert explain(model, pictures(), 1).constants["biases"].abs().min() > 1e-3
    for module in model.modules():
        if hasattr(module, "bias_share"):
            module.bias_share = 0.0
    explanation = explain(model, pictures(), 1)
    assert not explanation.constants
    assert explanation.completeness_gap.max() < 1e-10


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (8, 8)),
        ({"fc_norm": False, "b": 1.5}, (6, 10)),
        ({"max_out": 2, "window_size": 4}, (10, 6)),
    ],
)
def test_weights_are_the_product_of_the_layers_matrices(options, size):
    model = make(logit_bias=0.5, temperature=2.0, **options)
    x = pictures(1, size)
    trace = swin_logits(model, array(x[0]), 2, options.get("window_size", 3), (2, 4))
    for target in range(3):
        explanation = explain(model, x, target)
        expected = trace.matrix[target].reshape(x.shape[1:]) / 2
        largest = np.abs(expected).max()
        assert largest > 1e-6
        np.testing.assert_allclose(
            array(explanation.weights[0]), expected, rtol=0, atol=1e-9 * largest
        )
        logit = trace.value[target] / 2 + 0.5
        np.testing.assert_allclose(array(explanation.logit), logit, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", ["bcos", "conventional"], indirect=True)
def test_compiled_models_are_explained(form):
    torch._dynamo.reset()
    model, x = make(depths=(1, 2), **form), pictures(size=(8, 16))
    graph = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=1e-12)
    found, expected = explain(graph, x, 1).weights, explain(model, x, 1).weights
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch._dynamo.reset()


# --- the twin -----------------------------------------------------------------------------------


def load_twin(model, twin):
    """Weights of timm's Swin, which has smaller tables where windows are cut to a small map."""
    weights = {}
    for name, value in twin.state_dict().items():
        if name.endswith("relative_position_bias_table"):
            layer = name.rpartition(".")[0]
            cut, whole = (m.get_submodule(layer).window_size for m in (twin, model))
            table = value.new_zeros(*(2 * side - 1 for side in whole), value.shape[1])
            middle = [slice(w - c, w + c - 1) for w, c in zip(whole, cut, strict=True)]
            table[*middle] = value.unflatten(0, [2 * side - 1 for side in cut])
            value = table.flatten(0, 1)
        elif name == "patch_embed.proj.weight":
            value = value.permute(0, 2, 3, 1).flatten(1)
        weights[name.replace("head.fc.", "head.")] = value
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not set(missing) & {name for name, _ in model.named_parameters()}
    return model


@pytest.mark.parametrize(
    ("size", "window"),
    [
        (64, 4),  # windows divide; the last two stages are one window
        (72, 4),  # 18 places: padded to 20, then 9 to 12, 5 to 8
        (100, 7),
        ((64, 96), 4),  # a window of 2 x 3 places in the last stage
        ((36, 52), 3),  # 9 x 13: squares are padded too
        (32, 7),  # smaller than a window from the second stage on
        (64, (8, 7, 3, 2)),
        (64, (8, 7, (2, 3), 2)),
    ],
)
def test_conventional_form_is_timms_network(size, window):
    options = {
        "img_size": size, "window_size": window, "embed_dim": 16, "depths": (2, 2, 3, 2),
        "num_heads": (1, 2, 4, 8), "num_classes": 5,
    }  # fmt: skip
    twin = shaken(timm.create_model("swin_tiny_patch4_window7_224", **options))
    model = BcosSwinTransformer(in_chans=3, b=1.0, conventional=True, **options).double().eval()
    load_twin(model, twin)
    x = pictures(2, size if isinstance(size, tuple) else (size, size), 3)
    expected = twin.forward_features(x)
    assert model.forward_features(x).shape == expected.shape
    torch.testing.assert_close(model.forward_features(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(x), twin(x), rtol=1e-9, atol=1e-9)
    pooled = twin.forward_head(expected, pre_logits=True)
    found = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(found, pooled, rtol=1e-9, atol=1e-9)


def test_swin_tiny_is_timms_swin_tiny():
    twin = timm.create_model("swin_tiny_patch4_window7_224").double().eval()
    model = load_twin(
        BcosSwinTransformer(in_chans=3, b=1.0, conventional=True).double().eval(), twin
    )
    x = pictures(1, (224, 224), 3)
    torch.testing.assert_close(model(x), twin(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_the_layout_of_their_twins_and_branches_that_start_small(name):
    with torch.device("meta"):
        model = create_model(name, in_chans=3)
        twin = timm.create_model(name.removeprefix("bcos_"))
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    scales = {key: sizes.pop(key) for key in list(sizes) if ".ls" in key}
    expected = {k.replace("head.fc.", "head."): v.numel() for k, v in twin.named_parameters()}
    assert sizes == {key: size for key, size in expected.items() if not key.endswith(".bias")}
    assert len(scales) == 2 * sum(len(stage.blocks) for stage in model.layers)


# --- timm's contract ----------------------------------------------------------------------------


def test_feature_maps_are_those_of_the_stages():
    name, options = VARIANTS[0], {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1,) * 4}
    extractor = create_model(name, features_only=True, **options).eval()
    assert extractor.feature_info.channels() == [16, 32, 64, 128]
    assert extractor.feature_info.reduction() == [4, 8, 16, 32]
    x = torch.rand(1, 6, 64, 72)
    maps = extractor(x)
    assert [m.shape for m in maps] == [
        (1, 16, 18, 16), (1, 8, 9, 32), (1, 4, 5, 64), (1, 2, 3, 128),
    ]  # fmt: skip
    model = create_model(name, **options).eval()
    weights = {k.replace("layers_", "layers."): v for k, v in extractor.state_dict().items()}
    model.load_state_dict(weights, strict=False)
    assert torch.equal(model.forward_features(x), maps[-1])


def test_some_feature_maps_can_be_asked_for():
    extractor = create_model(VARIANTS[0], features_only=True, out_indices=(1, 3))
    assert extractor.feature_info.channels() == [192, 768]
    assert create_model(VARIANTS[0], features_only=True).feature_info.channels()[0] == 96


def test_features_are_a_map_with_channels_last(form):
    assert make(**form).forward_features(pictures(size=(16, 20))).shape == (2, 4, 5, 16)


def test_the_norm_is_where_fc_norm_says():
    x = pictures()
    model = make()
    features = model.forward_features(x)
    evidence = model.head(model.norm(features.mean((1, 2))))
    assert torch.equal(model(x), model.logits(evidence))
    model.fc_norm = False
    evidence = model.head(model.norm(features).mean((1, 2)))
    assert torch.equal(model(x), model.logits(evidence))
    assert torch.equal(model.forward_features(x), model.norm(features))


def test_the_norm_comes_after_pooling_but_in_conventional_networks():
    assert make().fc_norm
    assert not make(conventional=True).fc_norm
    assert make(conventional=True, fc_norm=True).fc_norm


@pytest.mark.parametrize("fc_norm", [True, False])
def test_the_map_is_left_unpooled_on_demand(fc_norm):
    model = make(num_classes=0, global_pool="", fc_norm=fc_norm)
    x = pictures()
    assert model(x).shape == (2, 4, 4, 16)
    expected = model(x).mean((1, 2))
    model.reset_classifier(0, "avg")
    if not fc_norm:
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    assert model(x).shape == (2, 16)


def test_a_new_head_keeps_exponent_and_max_out():
    model = make(b=1.25, max_out=2)
    model.reset_classifier(7)
    assert (model.head.b, model.head.max_out, model.head.out_features) == (1.25, 2, 7)
    assert model.double()(pictures()).shape == (2, 7)


def test_exponent_and_max_out_reach_every_layer():
    model = make(b=1.25, max_out=2)
    layers = [module for module in model.modules() if isinstance(module, BcosLinear)]
    assert len(layers) == 1 + 4 * 3 + 1 + 1
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


@pytest.mark.parametrize(("encoding", "chans"), [(None, 6), ("rgb", 3)])
def test_encoding_and_channels(encoding, chans):
    model = make(in_chans=chans, encoding=encoding)
    assert model.encoding == (encoding or "complement")
    assert model(pictures(1, chans=chans)).shape == (1, 3)


def test_every_other_block_is_shifted():
    model = make(depths=(3, 2))
    shifted = [[block.attn.shifted for block in stage.blocks] for stage in model.layers]
    assert shifted == [[False, True, False], [False, True]]


def test_windows_can_differ_between_stages():
    model = make(window_size=((2, 3), 4))
    windows = [m.window_size for m in model.modules() if isinstance(m, BcosWindowAttention)]
    assert windows == [(2, 3), (2, 3), (4, 4), (4, 4)]


def test_any_image_of_whole_patches_can_be_fed():
    model = make()
    for size in ((2, 2), (4, 30), (22, 18)):
        assert model(pictures(1, size)).isfinite().all()
    with pytest.raises(ValueError, match="image of 15 x 16 px does not divide"):
        model(pictures(1, (15, 16)))


def test_decay_is_kept_from_norms_and_tables():
    model = make()
    spared = {
        name for name, _ in model.named_parameters() if "norm" in name or "position_bias" in name
    }
    assert model.no_weight_decay() == spared


@pytest.mark.parametrize("coarse", [True, False])
def test_parameters_are_grouped_in_order_of_depth(coarse):
    model = make(init_values=0.1)
    groups = timm.models.group_parameters(model, model.group_matcher(coarse=coarse))
    depths = {name: depth for depth, group in groups.items() for name in group}
    assert set(depths) == {name for name, _ in model.named_parameters()}
    order = [
        "patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight",
        "layers.0.blocks.1.attn.proj.weight", "layers.1.downsample.reduction.weight",
        "layers.1.blocks.1.mlp.fc1.weight", "head.weight",
    ]  # fmt: skip
    assert [depths[name] for name in order] == sorted(depths[name] for name in order)
    assert len(groups) == (4 if coarse else 6)


def test_stochastic_depth_grows_over_all_stages():
    model = make(depths=(2, 3), drop_path_rate=0.4)
    rates = [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("option", ["drop_rate", "drop_path_rate"])
def test_regularisation_is_off_in_eval_mode(option):
    model, x = make(**{option: 0.5}), pictures(4)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_gradient_reaches_every_parameter(form):
    for name, gradient in gradients(make(**form).train(), pictures()).items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


def test_checkpointing_gives_the_same_gradients_and_explanations():
    model, x = make(), pictures()
    expected, weights = gradients(model.train(), x), explain(model.eval(), x, 1).weights
    calls = []
    model.layers[1].blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    for name, gradient in gradients(model.train(), x).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    assert len(calls) == 2
    assert torch.equal(explain(model.eval(), x, 1).weights, weights)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 15}, "image of 15 x 15 px does not divide into patches of 2 px; use 16 x 16"),
        ({"depths": ()}, r"depths must be one or more numbers of blocks, got \(\)"),
        ({"depths": (2, 0)}, r"depths must be .*got \(2, 0\)"),
        ({"num_heads": (2,)}, r"num_heads must have 2 entries as depths, got \(2,\)"),
        ({"num_heads": (3, 4)}, "num_heads must divide dim, got 3 for 8"),
        ({"window_size": (3, 3, 3)}, r"window_size must have 2 entries as depths, got \(3, 3, 3\)"),
        ({"window_size": 0}, "window_size must be .*got 0"),
        ({"global_pool": "max"}, "global_pool must be .*got 'max'"),
        ({"global_pool": ""}, "goes with num_classes=0"),
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"conventional": True, "max_out": 2}, "max_out must be 1 where weights keep"),
        ({"encoding": "rgb"}, "encoding 'rgb' makes 3 channels, in_chans is 6"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
