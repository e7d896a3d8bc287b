"""What every registered B-cos model keeps to: timm's contract, and exact explanations."""

import copy

import pytest
import timm
import torch

import bcos_vit.models  # noqa: F401 -- registers the models
from bcos_vit.explain import explain
from bcos_vit.layers import (
    BcosBatchNorm2d,
    BcosConv2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosLinear,
    explanation_mode,
)
from bcos_vit.models import TWINS, create_model, create_twin
from tests.conftest import settle_statistics, unsettle

NAMES = timm.list_models("bcos_*")
CNNS = [name for name in NAMES if "resnet" in name]
TRANSFORMERS = [name for name in NAMES if name not in CNNS]
NORMS = (BcosBatchNorm2d, BcosGroupNorm, BcosLayerNorm)
SIZE = 64


def shallow(name):
    """Fewer blocks of the same kind, where depth adds only time."""
    return {"layers": (1, 1, 1, 1)} if name in CNNS else {"depth": 2}


def create(name, **options):
    defaults = {"num_classes": 5} if name in CNNS else {"num_classes": 5, "img_size": SIZE}
    return create_model(name, **(defaults | options)).eval()


def pictures(count=2, chans=6, size=SIZE):
    return torch.rand(count, chans, size, size)


def settled(name, **options):
    """Float64, with no norm at 1 and statistics that fit, so that nothing is left at a default."""
    model = unsettle(create(name, **options)).double()
    return settle_statistics(model, pictures(4, model.in_chans).double())


def assert_same_explanation(one, other, images, **tolerance):
    first, second = explain(one, images, 1), explain(other, images, 1)
    assert first.weights.abs().max() > 0
    for field in ("logits", "bias", "weights", "contributions"):
        torch.testing.assert_close(getattr(first, field), getattr(second, field), **tolerance)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_all_families_are_registered():
    assert {"bcos_vit_tiny_patch16_224", "bcos_vitc_tiny_patch16_224", "bcos_resnet18"} <= set(
        NAMES
    )


# --- explanations -------------------------------------------------------------------------------


def test_explanations_are_complete(name):
    explanation = explain(settled(name), pictures().double(), 1)
    assert explanation.constants == {}
    assert explanation.contributions.abs().sum() > 1e-3
    assert explanation.completeness_gap.max() < 1e-9


def test_explanations_in_float32_are_complete_up_to_rounding(name):
    explanation = explain(settled(name).float(), pictures(), 1)
    # 4096 float32 contributions, each good to 24 bits of the largest partial sum.
    scale = explanation.contributions.abs().sum((1, 2)) + explanation.logit.abs()
    assert (explanation.completeness_gap / scale).max() < 1e-5


def test_weights_reproduce_the_evidence_and_the_plain_gradient_is_something_else(name):
    model, x = settled(name, **shallow(name)), pictures().double()
    weights = explain(model, x, 1).weights
    x.requires_grad_()
    gradient = torch.autograd.grad(model(x)[:, 1].sum(), x)[0]
    assert (gradient - weights).norm() > 0.1 * weights.norm()


def test_a_batch_equals_its_images_one_at_a_time(name):
    model, x = settled(name, **shallow(name)), pictures(3).double()
    together = explain(model, x, [0, 1, 2])
    for i in range(3):
        alone = explain(model, x[i], i)
        torch.testing.assert_close(alone.weights, together.weights[i], rtol=1e-9, atol=1e-12)


def test_channels_last_gives_the_same(name):
    model, x = settled(name, **shallow(name)), pictures().double()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        explain(other, last, 1).weights, explain(model, x, 1).weights, rtol=1e-9, atol=1e-12
    )


def test_stored_weights_give_the_same_explanation(name, tmp_path):
    old = settled(name, temperature=2.0, logit_bias=-1.0)
    torch.save(old.state_dict(), tmp_path / "weights.pt")
    new = create(name).double()
    new.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_same_explanation(old, new, pictures().double(), rtol=0, atol=0)


def test_a_copy_gives_the_same_explanation(name):
    model = settled(name)
    assert_same_explanation(model, copy.deepcopy(model), pictures().double(), rtol=0, atol=0)


@pytest.mark.parametrize("b", [1.5, 2])
def test_options_of_bcos_layers_reach_all_of_them(name, b):
    model = create(name, b=b, max_out=2, **shallow(name))
    layers = [each for each in model.modules() if isinstance(each, BcosLinear | BcosConv2d)]
    assert {(layer.b, layer.max_out) for layer in layers} == {(b, 2)}


# --- timm's contract ----------------------------------------------------------------------------


def test_forward_is_features_then_head(name):
    model, x = create(name), pictures()
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model(x))
    assert model(x).shape == (2, 5)


def test_pre_logits_are_pooled_features(name):
    model, x = create(name), pictures()
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert pooled.shape == (2, model.num_features) == (2, model.head_hidden_size)


def test_without_classes_the_output_is_the_pooled_features(name):
    model, x = settled(name), pictures().double()
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    torch.testing.assert_close(model(x), pooled, rtol=0, atol=1e-12)


def test_a_model_made_without_classes_returns_features(name):
    assert create(name, num_classes=0)(pictures()).shape == (2, create(name).num_features)


def test_a_new_classifier_changes_the_head_and_nothing_else(name):
    model = settled(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(9)
    assert model.num_classes == 9
    assert model.double()(pictures().double()).shape == (2, 9)
    head = model.pretrained_cfg["classifier"]
    for key, value in model.state_dict().items():
        if not key.startswith((f"{head}.", "logits.")):
            assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("classes", [1, 9, 50])
def test_the_logit_bias_follows_the_number_of_classes(name, classes):
    model = create(name, **shallow(name))
    model.reset_classifier(classes)
    expected = create(name, num_classes=classes, **shallow(name)).logits.bias
    assert torch.equal(model.logits.bias, expected)
    # float32 sigmoid; 1 / (1 + e^3) where chance is larger.
    wanted = min(0.04742587, 1 / classes)
    assert model.logits.bias.sigmoid().tolist() == pytest.approx([wanted] * classes, abs=1e-6)


def test_a_logit_bias_of_nought_is_kept(name):
    model = create(name, logit_bias=0.0, **shallow(name))
    model.reset_classifier(7)
    assert (model.logits.bias == 0).all()
    assert (model(torch.zeros(1, 6, SIZE, SIZE)) == 0).all()


def test_a_single_output_works(name):
    model = settled(name, num_classes=1, **shallow(name))
    assert explain(model, pictures().double()).completeness_gap.max() < 1e-9


@pytest.mark.parametrize("chans", [3, 4, 6])
@pytest.mark.parametrize("size", [32, 96])
def test_any_channels_and_sizes(name, chans, size):
    extra = {} if name in CNNS else {"img_size": size}
    model = create(name, in_chans=chans, **extra, **shallow(name))
    assert model(pictures(1, chans, size)).shape == (1, 5)


def test_six_channels_are_the_default(name):
    model = create(name)
    assert model.in_chans == 6
    assert model.pretrained_cfg["input_size"] == (6, 224, 224)
    assert len(model.pretrained_cfg["mean"]) == len(model.pretrained_cfg["std"]) == 6


def test_an_unknown_keyword_is_refused(name):
    with pytest.raises(TypeError, match="num_clases"):
        create(name, num_clases=3)


def test_the_classifier_and_the_first_layer_are_where_the_config_says(name):
    model = create(name)
    config = model.pretrained_cfg
    assert model.get_submodule(config["classifier"]) is model.get_classifier()
    first = model.get_submodule(config["first_conv"])
    assert any(p is next(model.parameters()) for p in first.parameters())


def test_decay_is_kept_from_every_norm_and_only_from_norms(name):
    model = create(name)
    norms = {
        f"{prefix}.weight" for prefix, module in model.named_modules() if isinstance(module, NORMS)
    }
    assert model.no_weight_decay() == norms


@pytest.mark.parametrize("coarse", [True, False])
def test_every_parameter_belongs_to_a_group_in_order_of_depth(name, coarse):
    model = create(name)
    groups = timm.models.group_parameters(model, model.group_matcher(coarse=coarse))
    assert sorted(p for group in groups.values() for p in group) == sorted(
        p for p, _ in model.named_parameters()
    )
    depths = {p: depth for depth, group in groups.items() for p in group}
    order = list(depths.values())
    first, head = next(model.named_parameters())[0], model.pretrained_cfg["classifier"]
    assert depths[first] == min(order)
    assert depths[f"{head}.weight"] == max(order)
    assert len(set(order)) > 3


@pytest.mark.parametrize("chans", [3, 6])
@pytest.mark.parametrize("cnn", CNNS)
def test_cnns_return_feature_maps(cnn, chans):
    model = create_model(cnn, features_only=True, in_chans=chans, **shallow(cnn)).eval()
    info = model.feature_info
    maps = model(pictures(1, chans))
    assert len(maps) == 5
    for found, width, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert found.shape == (1, width, SIZE // reduction, SIZE // reduction)


@pytest.mark.parametrize("transformer", TRANSFORMERS)
def test_transformers_say_that_they_have_no_feature_maps(transformer):
    with pytest.raises(RuntimeError, match="features_only"):
        create_model(transformer, features_only=True)


# --- training -----------------------------------------------------------------------------------


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in NAMES]
    + [(name, {"pos_embed": code}) for name in TRANSFORMERS for code in ("sincos", "none")],
)
def test_gradient_reaches_every_parameter(name, options):
    model = settled(name, **shallow(name), **options).train()
    for key, gradient in gradients(model, pictures().double()).items():
        assert gradient is not None, key
        assert gradient.isfinite().all(), key
        assert gradient.abs().max() > 0, key


def test_checkpointing_gives_the_same_gradients(name):
    model, x = settled(name, **shallow(name)).train(), pictures().double()
    expected = gradients(model, x)
    calls = []
    model.get_submodule("layer2" if name in CNNS else "blocks.1").register_forward_pre_hook(
        lambda *_: calls.append(1)
    )
    model.set_grad_checkpointing()
    for key, gradient in gradients(model, x).items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-9, atol=1e-12)
    assert len(calls) == 2
    model.set_grad_checkpointing(False)
    gradients(model, x)
    assert len(calls) == 3


def test_checkpointing_changes_no_explanation(name):
    model, x = settled(name, **shallow(name)), pictures().double()
    expected = explain(model, x, 1).weights
    model.set_grad_checkpointing()
    assert torch.equal(explain(model, x, 1).weights, expected)


def test_half_precision_training_gives_finite_gradients(name):
    model = create(name, **shallow(name)).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(pictures()).float().square().sum()
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key


# --- compilation --------------------------------------------------------------------------------


@pytest.fixture
def compiled(name):
    """A model, and the same one compiled without a break and run once outside explanation mode."""
    torch._dynamo.reset()
    model = settled(name, **shallow(name))
    graph = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        graph(pictures().double())
    yield model, graph
    torch._dynamo.reset()


def weights_by_hand(model, x):
    with explanation_mode():
        x = x.clone().requires_grad_()
        logits = model(x)
        return logits.detach(), torch.autograd.grad(logits[:, 1].sum(), x)[0]


def test_compiled_models_compute_the_same(compiled):
    model, graph = compiled
    x = pictures().double()
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=1e-12)


def test_compiled_models_have_the_same_weights_in_explanation_mode(compiled):
    model, graph = compiled
    x = pictures().double()
    for found, expected in zip(weights_by_hand(graph, x), weights_by_hand(model, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_compiled_models_are_explained(compiled):
    model, graph = compiled
    assert_same_explanation(model, graph, pictures().double(), rtol=1e-9, atol=1e-12)


# --- twins --------------------------------------------------------------------------------------


def size_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_twin_of_the_same_size_exists(name):
    assert name in TWINS
    ratio = size_of(create_model(name, num_classes=2)) / size_of(create_twin(name, num_classes=2))
    assert 0.9 < ratio < 1.1


def test_the_twin_takes_the_same_images(name):
    twin = create_twin(name, num_classes=2, in_chans=6).eval()
    assert twin(pictures(1, 6, 224)).shape == (1, 2)
