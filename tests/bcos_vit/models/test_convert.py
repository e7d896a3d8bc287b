"""A conventional network rebuilt from our layers is the same function, on its way to B-cos."""

import copy

import pytest
import timm
import torch
from timm.layers import SwiGLU
from torch import nn

from bcos_vit.errors import ConversionError
from bcos_vit.explain import check_explainable, explain
from bcos_vit.layers import BcosConv2d, BcosLinear
from bcos_vit.models import Homotopy, bcosify, create_model
from bcos_vit.transforms import add_complement

DINO = {"img_size": 28, "depth": 2}
SOURCES = {
    "resnet18": {},
    "resnet50": {"layers": (1, 1, 1, 1)},
    "resnext50_32x4d": {"layers": (1, 1, 1, 1)},
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "swin_tiny_patch4_window7_224": {"img_size": 56, "depths": (2, 2, 2, 2)},
    "vit_tiny_patch16_224": {"img_size": 48, "depth": 2},
    "vit_small_patch14_dinov2": DINO,
    "vit_small_patch14_reg4_dinov2": DINO,
    "vit_giant_patch14_dinov2": DINO | {"embed_dim": 128, "num_heads": 4},
    "vit_base_patch16_clip_224": {"img_size": 32, "depth": 2, "embed_dim": 64, "num_heads": 2},
}
VARIATIONS = {
    "averaged tokens": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "averaged normed tokens": ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    "gate and value apart": (
        "vit_tiny_patch16_224",
        {"mlp_layer": SwiGLU, "act_layer": nn.SiLU, "reg_tokens": 2, "no_embed_class": False},
    ),
    "no bias of queries, keys and values": ("vit_tiny_patch16_224", {"qkv_bias": False}),
    "no class token": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "norm before pooling": ("convnext_atto", {"head_norm_first": True}),
    "no layer scale": ("convnext_atto", {"ls_init_value": None}),
    "no position bias to speak of": ("swin_tiny_patch4_window7_224", {"window_size": 4}),
}
CASES = {name: (name, {}) for name in SOURCES} | VARIATIONS


def make_source(name, classes=3, **options):
    """A timm model in float64 with nothing left at a default, for small images."""
    small = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}} | SOURCES[name] | options
    model = timm.create_model(name, num_classes=classes, **small)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1 and (key.endswith("weight") or "gamma" in key):
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.3)
            elif any(word in key for word in ("pos_embed", "token", "position")):
                parameter.normal_(std=0.5)
        for key, buffer in model.named_buffers():
            if "running_var" in key:
                buffer.uniform_(0.5, 2)
            elif "running_mean" in key:
                buffer.normal_()
    return model.double().eval()


def pictures(model, count=2):
    size = model.patch_embed.img_size if hasattr(model, "patch_embed") else (64, 64)
    return torch.rand(count, 3, *size, dtype=torch.float64)


def normalised(model, x):
    config = model.pretrained_cfg
    mean, std = (
        torch.tensor(config[key], dtype=torch.float64)[:, None, None] for key in ("mean", "std")
    )
    return (x - mean) / std


@pytest.fixture(params=CASES)
def pair(request):
    name, options = CASES[request.param]
    source = make_source(name, **options)
    return source, bcosify(source)


def test_the_converted_network_is_the_same_function(pair):
    source, converted = pair
    x = pictures(source)
    with torch.no_grad():
        expected, found = source(normalised(source, x)), converted(add_complement(x))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_its_explanation_is_complete_and_tells_the_biases_apart(pair):
    source, converted = pair
    explanation = explain(converted, add_complement(pictures(source)), 1)
    assert explanation.completeness_gap.max() < 1e-9
    assert explanation.constants["biases"].abs().min() > 0


def test_at_the_end_of_the_way_no_bias_is_left(pair):
    source, converted = pair
    x = add_complement(pictures(source))
    Homotopy(10).apply(converted, 10)
    explanation = explain(converted, x, 1)
    assert "biases" not in explanation.constants
    assert explanation.completeness_gap.max() < 1e-9
    layers = [m for m in converted.modules() if isinstance(m, BcosLinear | BcosConv2d)]
    assert {layer.b for layer in layers} == {2.0}
    with torch.no_grad():
        for key, parameter in converted.named_parameters():
            if key.endswith("bias"):
                parameter.add_(1)
    # The gate of a GELU is computed another way while explaining: rounding only.
    torch.testing.assert_close(converted(x), explanation.logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch14_reg4_dinov2"])
def test_float32_and_three_channels(name):
    source = make_source(name).float()
    x = normalised(source, pictures(source)).float()
    converted = bcosify(source, in_chans=3)
    assert converted.in_chans == 3
    assert converted.encoding == "rgb"
    assert converted.pretrained_cfg["mean"] == source.pretrained_cfg["mean"]
    # Some ten layers in float32, 6e-8 each.
    torch.testing.assert_close(converted(x), source(x), rtol=1e-5, atol=1e-5)


def test_the_source_is_left_as_it_was():
    source = make_source("resnet18").train()
    before = copy.deepcopy(source.state_dict())
    bcosify(source)
    assert source.training
    assert all(torch.equal(value, before[key]) for key, value in source.state_dict().items())


def test_a_network_without_classes_gives_its_features():
    source = make_source("vit_small_patch14_reg4_dinov2", classes=0)
    converted = bcosify(source)
    x = pictures(source)
    expected = source(normalised(source, x))
    torch.testing.assert_close(converted(add_complement(x)), expected, rtol=0, atol=1e-9)
    tokens = converted.forward_features(add_complement(x))
    torch.testing.assert_close(
        tokens, source.forward_features(normalised(source, x)), rtol=0, atol=1e-9
    )


def test_a_learnt_position_code_fits_other_sizes_as_in_timm():
    source = make_source("vit_tiny_patch16_224", dynamic_img_size=True)
    converted = bcosify(source)
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    # The code is resampled in float32, by both.
    torch.testing.assert_close(
        converted(add_complement(x)), source(normalised(source, x)), rtol=1e-6, atol=1e-6
    )


def test_a_new_head_stands_where_the_network_stands():
    converted = bcosify(make_source("resnet18"))
    Homotopy(2).apply(converted, 1)
    converted.reset_classifier(7)
    assert (converted.fc.b, converted.fc.bias_share) == (1.5, 0.5)


def test_the_stage_is_stored_with_the_weights():
    converted = bcosify(make_source("vit_tiny_patch16_224"))
    Homotopy(3).apply(converted, 1)
    x = torch.rand(1, 6, 48, 48, dtype=torch.float64)
    other = bcosify(make_source("vit_tiny_patch16_224"))
    assert not torch.allclose(other(x), converted(x))
    other.load_state_dict(converted.state_dict())
    assert other.stage == converted.stage
    # float64 weights, exponent and share in float32 on both sides.
    assert torch.equal(other(x), converted(x))


def test_it_trains_after_the_way():
    converted = bcosify(make_source("resnet18"))
    Homotopy(0).apply(converted, 0)
    converted.train()(torch.rand(4, 6, 64, 64, dtype=torch.float64)).square().sum().backward()
    check_explainable(converted.eval())
    for key, parameter in converted.named_parameters():
        # Biases get a gradient of 0: parameters without one stop DistributedDataParallel.
        assert (parameter.grad.abs().max() > 0) != key.endswith("bias"), key


def test_what_is_stored_is_what_is_computed_in_an_average_too():
    converted = bcosify(make_source("resnet18"))
    average = timm.utils.ModelEmaV3(converted, decay=0.5)
    Homotopy(4).apply(converted, 2)
    average.update(converted)
    x = torch.rand(1, 6, 64, 64, dtype=torch.float64)
    restored = bcosify(make_source("resnet18"))
    restored.load_state_dict(average.module.state_dict())
    assert restored.stage == average.module.stage == (1.0, 1.0)
    assert torch.equal(restored(x), average.module(x))
    Homotopy(4).apply(average.module, 2)
    assert average.module.stage == converted.stage


@pytest.mark.parametrize("act_layer", ["gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_activation_is_noticed_behind_a_small_branch_scale(act_layer, dtype):
    source = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, init_values=1e-5, act_layer=act_layer
    )
    with pytest.raises(ConversionError, match="computes something else"):
        bcosify(source.to(dtype))


def test_types_branch_scales_and_settings_are_kept():
    source = timm.create_model("convnext_atto", num_classes=2, drop_path_rate=0.2)
    converted = bcosify(source.bfloat16())
    assert {p.dtype for p in converted.parameters()} == {torch.bfloat16}
    assert torch.equal(converted.stages[0].blocks[0].gamma, source.stages[0].blocks[0].gamma)
    assert converted.stages[-1].blocks[-1].drop_path.drop_prob == pytest.approx(0.2)
    resnet = timm.create_model("resnet18", num_classes=2)
    resnet.bn1.momentum = 0.01
    assert bcosify(resnet).bn1.momentum == 0.01


def test_a_head_of_zeros_does_not_hide_the_features():
    source = make_source("resnet18")
    nn.init.zeros_(source.fc.weight)
    nn.init.zeros_(source.fc.bias)
    assert bcosify(source)(torch.rand(1, 6, 64, 64, dtype=torch.float64)).abs().max() == 0


def test_a_model_that_does_not_say_its_normalisation_is_refused():
    source = make_source("resnet18")
    source.pretrained_cfg = {}
    with pytest.raises(ConversionError, match=r"set model\.pretrained_cfg = "):
        bcosify(source)


def test_codes_and_tokens_are_kept_from_weight_decay():
    converted = bcosify(make_source("vit_tiny_patch16_224"))
    assert {"pos_embed.code", "prefix.code", "norm.weight"} <= converted.no_weight_decay()


@pytest.mark.parametrize(
    ("step", "stage"), [(0, (1.0, 1.0)), (5, (1.25, 0.5)), (10, (1.5, 0.0)), (99, (1.5, 0.0))]
)
def test_the_way_is_linear_in_steps_and_ends(step, stage):
    model = create_model("bcos_resnet18", num_classes=2, conventional=True, b=1.0)
    arrived = Homotopy(10, b=1.5).apply(model, step)
    assert model.stage == stage
    assert arrived == (step >= 10)


def test_a_bcos_network_has_no_way_to_go():
    model = create_model("bcos_resnet18", num_classes=2)
    with pytest.raises(ValueError, match="only a network made with conventional=True"):
        Homotopy(1).apply(model, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Homotopy(-1), "steps must be a whole number of at least 0, got -1"),
        (lambda: Homotopy(2.5), "steps must be a whole number of at least 0, got 2.5"),
        (lambda: Homotopy(1).progress(-1), "step must be at least 0, got -1"),
        (lambda: Homotopy(1, b=0.5), "b must be at least 1, got 0.5"),
        (lambda: bcosify(make_source("resnet18"), in_chans=4), "in_chans must be 3 or 6, got 4"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "densenet121",
            {},
            "a DenseNet cannot be converted; only timm's VisionTransformer, ResNet",
        ),
        ("seresnet18", {}, r"holds 'layer1\.0\.se\S+' and \d+ more .*no place"),
        ("resnet18d", {}, "first layer 'conv1' is not a convolution of RGB"),
        ("convnextv2_atto", {"depths": (1, 1, 1, 1)}, r"holds .*grn"),
        ("resnet18", {"in_chans": 1}, "first layer 'conv1' is not a convolution of RGB"),
        (
            "vit_base_patch16_clip_quickgelu_224",
            {"img_size": 32, "depth": 2, "embed_dim": 64, "num_heads": 2},
            "computes something else .*part that is not known",
        ),
        (
            "vit_base_patch16_siglip_224",
            {"img_size": 32, "depth": 1, "embed_dim": 64, "num_heads": 2},
            "has no form here: global_pool must be in .*got 'map'",
        ),
    ],
)
def test_what_cannot_be_converted_is_named(name, options, message):
    overlay = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}}
    with pytest.raises(ConversionError, match=message):
        bcosify(timm.create_model(name, num_classes=2, **(overlay | options)))
