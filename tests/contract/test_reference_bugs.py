"""Bugs of the published implementation (bcos 0.1.3), each with a test that we do not have it.

For every family. The same ground in more detail, on tiny models: ``tests/bcos_vit/explain`` (what
explaining leaves alone, threads, targets) and ``tests/bcos_vit/layers`` (every geometry and
precision of a layer).
"""

import copy
import math

import pytest
import torch
from timm.utils import ModelEmaV3

from bcos_vit.explain import explain
from bcos_vit.layers import BcosConv2d, explanation_mode, is_explaining
from tests.contract.families import FAMILIES, FAMILY_NAMES, create, gradients, pictures, settled


@pytest.fixture(params=FAMILY_NAMES)
def family(request):
    return FAMILIES[request.param]


def weights_by_hand(model, x, target=1):
    """Gradient of a logit with respect to the images."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


# --- 1: the result of explain() is an alias of the image's gradient -----------------------------


def test_a_second_explanation_does_not_overwrite_the_first(family):
    model, x = settled(family), pictures(family)
    first = explain(model, x, 0)
    kept = first.weights.clone()
    second = explain(model, x, 1)
    assert torch.equal(first.weights, kept)
    assert not torch.equal(second.weights, kept)
    assert first.weights.untyped_storage().data_ptr() != second.weights.untyped_storage().data_ptr()


# --- 2: leaving an inner explanation mode switches the outer one off; state lives on modules ----


def test_leaving_an_inner_explanation_mode_leaves_the_outer_one_on(family):
    model, x = settled(family), pictures(family)
    expected = explain(model, x, 1).weights
    with explanation_mode():
        with explanation_mode():
            pass
        explain(model, x, 0)
        torch.testing.assert_close(weights_by_hand(model, x), expected, rtol=1e-9, atol=1e-12)
    assert not is_explaining()


# --- 3: a head swapped in after the first explanation is not held -------------------------------


def test_a_head_swapped_in_later_is_explained_like_any_other(family):
    model, x = settled(family), pictures(family)
    explain(model, x, 1)
    head = copy.deepcopy(model.get_classifier())
    torch.nn.init.normal_(head.weight)
    fresh = copy.deepcopy(model)
    setattr(model, model.classifier_name, head)
    fresh.get_classifier().load_state_dict(head.state_dict())
    explanation = explain(model, x, 1)
    assert torch.equal(explanation.weights, explain(fresh, x, 1).weights)
    scale = explanation.contributions.abs().sum((1, 2))
    assert (explanation.completeness_gap / scale).max() < 1e-9
    plain = weights_by_hand(model, x)
    assert (plain - explanation.weights).norm() > 0.1 * explanation.weights.norm()


# --- 4: logit_bias=0.0 is ignored, num_classes=1 fails, a new head keeps ImageNet's bias --------


def test_a_logit_bias_of_nought_is_kept(family):
    model = create(family, logit_bias=0.0)
    model.reset_classifier(7)
    assert (model.logits.bias == 0).all()
    assert (model.double()(pictures(family) * 0) == 0).all()


def test_a_single_class_works(family):
    model = settled(family, num_classes=1)
    explanation = explain(model, pictures(family))
    assert explanation.logits.shape == (2, 1)
    assert (explanation.bias == -3).all()
    assert explanation.completeness_gap.max() < 1e-9


@pytest.mark.parametrize("classes", [1, 9, 50])
def test_the_logit_bias_follows_a_new_head(family, classes):
    model = create(family, num_classes=1000)
    assert model.logits.bias.tolist() == pytest.approx([-math.log(999)] * 1000)
    model.reset_classifier(classes)
    # Chance, but at most that of 1 / (1 + e^3).
    wanted = min(-3.0, -math.log(classes - 1)) if classes > 1 else -3.0
    assert model.logits.bias.tolist() == pytest.approx([wanted] * classes)


# --- 5: conversion to synchronised batch norm centres -------------------------------------------
# test_running.py: test_norms_stay_uncentred_when_converted_to_synchronised_ones, and the norms that
# two processes really synchronise.


# --- 6: dilation=(1, 1) and padding="same" fail; padded borders have wrong patch lengths --------


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": (1, 1), "padding": 1},
        {"padding": "same"},
        {"padding": "same", "padding_mode": "reflect"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": 1, "padding_mode": "circular"},
    ],
    ids=str,
)
def test_patches_are_as_long_at_the_border_as_inside(options):
    conv = BcosConv2d(3, 1, 3, **options).double()
    torch.nn.init.ones_(conv.weight)
    # Patches of 27 ones along a filter of ones: of length sqrt(27) = 5.20, and so is the response.
    # The reference takes a corner for sqrt(12) = 3.46 long and so has a cosine above 1.
    y = conv(torch.ones(1, 3, 6, 6, dtype=torch.float64))
    lengths = torch.full((6, 6), math.sqrt(27), dtype=torch.float64)
    if conv.padding_mode == "zeros":
        seen = torch.tensor([2, 3, 3, 3, 3, 2], dtype=torch.float64)
        lengths = (3 * seen[:, None] * seen).sqrt()
    # What is added in the root is 1e-6 of 12 or more.
    expected = lengths if conv.padding_mode != "zeros" else lengths**2 / 27 * lengths
    torch.testing.assert_close(y[0, 0], expected, rtol=1e-6, atol=0)


# --- 7: in float16 zero tokens give NaN and values near 300 give infinite norms -----------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0, 1, 300, -300])
def test_half_precision_models_stay_finite_on_black_and_on_large_images(family, dtype, scale):
    model = settled(family).to(dtype)
    x = (pictures(family) * scale).to(dtype)
    explanation = explain(model, x, 1)
    for name in ("logits", "weights", "contributions"):
        assert getattr(explanation, name).dtype == dtype
        assert getattr(explanation, name).isfinite().all(), name
    if scale == 0:
        assert (explanation.logits == explanation.bias[:, None]).all()


# --- 8: explain() leaves its traces on the caller's images --------------------------------------


@pytest.mark.parametrize("requires_grad", [True, False])
def test_explaining_changes_neither_images_nor_gradients(family, requires_grad):
    model, x = settled(family), pictures(family)
    waiting = {key: gradient.clone() for key, gradient in gradients(model, x).items()}
    before = x.clone()
    x.requires_grad_(requires_grad)
    explain(model, x)
    assert torch.equal(x, before)
    assert x.requires_grad == requires_grad
    assert x.grad is None
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, waiting[key]), key


# --- 9: explanation mode outlives an exception; averaged weights are not the ones evaluated -----


def test_an_exception_while_explaining_ends_explanation_mode(family):
    model, x = settled(family), pictures(family)
    expected = weights_by_hand(model, x)

    def fail(module, inputs):
        raise RuntimeError("out of memory")

    hook = model.get_classifier().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(model, x)
    hook.remove()
    assert not is_explaining()
    assert torch.equal(weights_by_hand(model, x), expected)


def test_an_average_is_evaluated_and_explained_by_its_own_weights(family):
    model, x = settled(family), pictures(family)
    average, expected = ModelEmaV3(model, decay=1.0), explain(model, x, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    average.update(model)
    found = explain(average, x, 1)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.weights, expected.weights)


# --- and: batch norm in training mode is explained without a word -------------------------------
# test_not_explainable.py: test_batch_norm_in_training_mode_is_named.
