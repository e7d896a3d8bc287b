"""What every registered B-cos model keeps to: timm's contract, and exact explanations.

Every model is built at full size, and nearly all of them compute; the finer points are shown on one
shallow model per family, in float64. How models run (compiled, exported, in half precision, on
several processes) is in ``test_running.py``.
"""

import copy
import gc
import re

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from bcos_vit.explain import explain
from bcos_vit.layers import (
    BcosBatchNorm2d,
    BcosConv2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosLinear,
)
from bcos_vit.models import TWINS, create_model, create_twin
from tests.conftest import unsettle
from tests.contract.families import (
    FAMILIES,
    FAMILY_NAMES,
    NAMES,
    create,
    gradients,
    members,
    pictures,
    settled,
)

NORMS = (BcosBatchNorm2d, BcosGroupNorm, BcosLayerNorm)
BCOS_LAYERS = (BcosLinear, BcosConv2d)


@pytest.fixture(params=FAMILY_NAMES)
def family(request):
    return FAMILIES[request.param]


def only(**what):
    """The families of which all that is true."""
    names = [
        name
        for name, each in FAMILIES.items()
        if all(getattr(each, key) == value for key, value in what.items())
    ]
    return pytest.mark.parametrize("family", names, indirect=True)


def test_every_model_belongs_to_one_family():
    owners = {name: [f.name for f in FAMILIES.values() if name in members(f)] for name in NAMES}
    assert {name: found for name, found in owners.items() if len(found) != 1} == {}


def test_every_family_is_registered():
    assert [each.name for each in FAMILIES.values() if each.name not in members(each)] == []


# --- every model at full size -------------------------------------------------------------------


def side(name):
    """Side in pixels of a small image that every layer of the model has something to do with."""
    if name == "bcos_inception_v3":
        return 80
    patch = re.search(r"vitc?_.*patch(\d+)_", name)
    if patch:
        return 2 * int(patch[1])
    return 32 if "vgg" in name else 64


def size_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def assert_gradient_reaches_every_parameter(model, images):
    """... in training mode, after which batch norms hold the statistics of these images."""
    for module in model.modules():
        if isinstance(module, BcosBatchNorm2d):
            module.momentum = 1.0
    model.train()(images).square().sum().backward()
    model.eval()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        low, high = parameter.grad.aminmax()  # of NaNs both are NaN
        assert low.isfinite(), key
        assert high.isfinite(), key
        assert low < 0 or high > 0, key
        parameter.grad = None


def assert_is_where_the_config_says(model):
    config = model.pretrained_cfg
    assert model.in_chans == config["input_size"][0] == 6
    assert config["mean"] == (0.0,) * 6
    assert config["std"] == (1.0,) * 6
    assert model.get_submodule(config["classifier"]) is model.get_classifier()
    first = model.get_submodule(config["first_conv"])
    assert any(p is next(model.parameters()) for p in first.parameters())


def assert_complete(explanation):
    # Sums of up to 38400 float32 products, each good to 24 bits and rounded again by every layer;
    # for the predicted class, whose evidence is not the small rest of a sum that cancels.
    scale = explanation.contributions.abs().sum((1, 2))
    assert (scale > 0).all()
    assert (explanation.completeness_gap / scale).max() < 1e-5
    assert explanation.constants == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_where_its_config_says_and_as_large_as_its_twin(name):
    with torch.device("meta"):  # shapes only
        model, twin = create_model(name), create_twin(name)
        assert model(torch.rand(2, 6, side(name), side(name))).shape == (2, 1000)
    assert_is_where_the_config_says(model)
    assert 0.9 < size_of(model) / size_of(twin) < 1.1


# A ViT's width and depth have nothing to do with the side of its patches: the tiny and small ones
# compute by every side, the others, which cost ten times as much, by one.
COMPUTING = [name for name in NAMES if not re.search(r"vitc?_(base|large)_patch(8|14)", name)]


@pytest.mark.parametrize("name", COMPUTING)
def test_models_learn_are_explained_and_survive_storage(name, tmp_path):
    images = torch.rand(2, 6, side(name), side(name))
    # No bias, so that a wrong sum of contributions has nothing to hide behind.
    model = unsettle(create_model(name, logit_bias=0.0))
    assert_gradient_reaches_every_parameter(model, images)
    before = explain(model, images)
    assert_complete(before)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    del model
    with torch.device("meta"):  # nothing is initialised that is overwritten anyway
        stored = create_model(name)
    stored.load_state_dict(load_file(path), assign=True)
    after = explain(stored.eval(), images)
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.weights, before.weights)
    assert torch.equal(after.contributions, before.contributions)
    path.unlink()  # all together would be gigabytes
    del stored
    gc.collect()


def test_twins_are_of_models_that_exist():
    assert set(TWINS) == set(NAMES)


# --- explanations -------------------------------------------------------------------------------


def assert_same_explanation(one, other, images, **tolerance):
    first, second = explain(one, images, 1), explain(other, images, 1)
    assert first.weights.abs().max() > 0
    for field in ("logits", "bias", "weights", "contributions"):
        torch.testing.assert_close(getattr(first, field), getattr(second, field), **tolerance)


def assert_exact(explanation):
    # float64: the evidence of a fresh network is small beside its bias, hence not 1e-12.
    scale = explanation.contributions.abs().sum((1, 2))
    assert (scale > 0).all()
    assert (explanation.completeness_gap / scale).max() < 1e-9


def test_explanations_are_complete(family):
    explanation = explain(settled(family), pictures(family), 1)
    assert explanation.constants == {}
    assert_exact(explanation)


@only(conventional=True)
@pytest.mark.parametrize("b", [1, 1.5])
def test_explanations_of_the_conventional_form_are_complete_with_the_biases(family, b):
    model = settled(family, conventional=True, b=b)
    explanation = explain(model, pictures(family), 1)
    assert list(explanation.constants) == ["biases"]
    assert (explanation.constants["biases"].abs() > 1e-3).all()
    assert_exact(explanation)


@only(conventional=True)
def test_without_its_biases_the_conventional_form_is_complete_by_itself(family):
    model = settled(family, conventional=True, b=1.5)
    model.set_homotopy(2.0, bias_share=0.0)
    explanation = explain(model, pictures(family), 1)
    assert not any(term.any() for term in explanation.constants.values())
    assert_exact(explanation)


def test_weights_are_not_the_plain_gradient(family):
    model, x = settled(family), pictures(family)
    weights = explain(model, x, 1).weights
    x.requires_grad_()
    gradient = torch.autograd.grad(model(x)[:, 1].sum(), x)[0]
    assert (gradient - weights).norm() > 0.1 * weights.norm()


def test_a_batch_equals_its_images_one_at_a_time(family):
    model, x = settled(family), pictures(family, 3)
    together = explain(model, x, [0, 1, 2])
    for i in range(3):
        alone = explain(model, x[i], i)
        torch.testing.assert_close(alone.weights, together.weights[i], rtol=1e-9, atol=1e-12)


def test_stored_weights_give_the_same_explanation(family, tmp_path):
    old = settled(family, temperature=2.0, logit_bias=-1.0)
    torch.save(old.state_dict(), tmp_path / "weights.pt")
    new = create(family)
    new.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_same_explanation(old, new, pictures(family), rtol=0, atol=0)


@pytest.mark.parametrize("b", [1.5, 2])
def test_options_of_bcos_layers_reach_all_of_them(family, b):
    model = create(family, b=b, max_out=2)
    layers = [each for each in model.modules() if isinstance(each, BCOS_LAYERS)]
    assert {(layer.b, layer.max_out) for layer in layers} == {(b, 2)}


# --- timm's contract ----------------------------------------------------------------------------


def test_forward_is_features_then_head(family):
    model, x = create(family), pictures(family)
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model(x))
    assert model(x).shape == (2, 5)


def test_pre_logits_are_pooled_features(family):
    model, x = create(family), pictures(family)
    assert model.forward_features(x).shape[0] == 2
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)


def test_without_classes_the_output_is_the_pooled_features(family):
    model, x = settled(family), pictures(family)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    torch.testing.assert_close(model(x), pooled, rtol=0, atol=1e-12)


def test_a_model_made_without_classes_returns_features(family):
    model = create(family, num_classes=0)
    assert model(pictures(family)).shape == (2, model.head_hidden_size)


def test_a_new_classifier_changes_the_head_and_nothing_else(family):
    model = settled(family)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(9)
    assert model.num_classes == 9
    assert model.double()(pictures(family)).shape == (2, 9)
    head = model.pretrained_cfg["classifier"]
    for key, value in model.state_dict().items():
        if not key.startswith((f"{head}.", "logits.")):
            assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("chans", [3, 4, 6])
@pytest.mark.parametrize("more", [0, 32])
def test_any_channels_and_sizes(family, chans, more):
    model = create(family, in_chans=chans)
    x = torch.rand(1, chans, family.size, family.size + more).double()
    assert model(x).shape == (1, 5)


def test_an_unknown_keyword_is_refused(family):
    with pytest.raises(TypeError, match="num_clases"):
        create(family, num_clases=3)


def test_decay_is_kept_from_norms_and_position_and_from_nothing_else(family):
    model = create(family)
    expected = {
        f"{prefix}.weight" for prefix, module in model.named_modules() if isinstance(module, NORMS)
    } | {key for key, _ in model.named_parameters() if "position_bias" in key}
    assert model.no_weight_decay() == expected


@pytest.mark.parametrize("coarse", [True, False])
def test_every_parameter_belongs_to_a_group_in_order_of_depth(family, coarse):
    model = create(family)
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


@only(tokens=False)
@pytest.mark.parametrize("chans", [3, 6])
def test_feature_maps_are_as_told(family, chans):
    model = create(family, features_only=True, num_classes=0, in_chans=chans)
    info = model.feature_info
    maps = model(pictures(family, 1, chans))
    assert len(maps) >= 4
    for found, width, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        if getattr(model, "output_fmt", "NCHW") == "NHWC":
            found = found.permute(0, 3, 1, 2)
        assert found.shape[:2] == (1, width)
        rows, columns = found.shape[2:]
        assert rows == columns
        if family.trimmed:
            assert 0 <= family.size // reduction - rows <= 4
        else:
            assert rows == family.size // reduction


@only(tokens=True)
def test_models_of_tokens_say_that_they_have_no_feature_maps(family):
    with pytest.raises(RuntimeError, match="features_only"):
        create(family, features_only=True)


def test_the_twin_takes_the_same_images(family):
    with torch.device("meta"):  # shapes only
        twin = create_twin(family.name, num_classes=2, in_chans=6).eval()
        images = torch.rand(1, *create_model(family.name).pretrained_cfg["input_size"])
        assert twin(images).shape == (1, 2)


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"pos_embed": "sincos"}, {"pos_embed": "none"}])
@only(tokens=True)
def test_gradient_reaches_every_parameter_under_other_position_codes(family, options):
    assert_gradient_reaches_every_parameter(settled(family, **options), pictures(family))


@only(conventional=True)
def test_gradient_reaches_every_parameter_of_the_conventional_form(family):
    model = settled(family, conventional=True, b=1.5)
    assert any(key.endswith(".bias") for key, _ in model.named_parameters())
    assert_gradient_reaches_every_parameter(model, pictures(family))


def test_checkpointing_gives_the_same_gradients(family):
    model, x = settled(family).train(), pictures(family)
    expected = gradients(model, x)
    layers = [module for module in model.modules() if isinstance(module, BCOS_LAYERS)]
    calls = []
    for i, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
    model.set_grad_checkpointing()
    for key, gradient in gradients(model, x).items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-9, atol=1e-12)
    recomputed = len(calls) - len(layers)
    assert recomputed >= len(layers) / 2
    calls.clear()
    model.set_grad_checkpointing(False)
    gradients(model, x)
    assert len(calls) == len(layers)


def test_checkpointing_changes_no_explanation(family):
    model, x = settled(family), pictures(family)
    expected = explain(model, x, 1).weights
    model.set_grad_checkpointing()
    assert torch.equal(explain(model, x, 1).weights, expected)


def test_a_copy_learns_and_is_explained_alone(family):
    model, x = settled(family), pictures(family)
    other = copy.deepcopy(model)
    assert_same_explanation(model, other, x, rtol=0, atol=0)
    before = model(x).detach()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    assert torch.equal(model(x), before)
