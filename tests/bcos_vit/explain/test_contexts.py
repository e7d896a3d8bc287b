"""explain() gives the same in any gradient mode, under autocast, and for a frozen model."""

import pytest
import torch

from bcos_vit.explain import explain


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes_make_no_difference(tiny_vit, images, context):
    expected = explain(tiny_vit, images, 1)
    with context():
        found = explain(tiny_vit, images, 1)
        assert torch.is_grad_enabled() == (context is torch.enable_grad)
    assert torch.equal(found.weights, expected.weights)
    assert torch.equal(found.contributions, expected.contributions)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_images_made_inside_are_explained(tiny_vit, images, context):
    expected = explain(tiny_vit, images, 1)
    with context():
        found = explain(tiny_vit, images * 1, 1)
        alone = explain(tiny_vit, images[0] * 1, 1)
    assert torch.equal(found.weights, expected.weights)
    torch.testing.assert_close(alone.weights, expected.weights[0], rtol=0, atol=1e-12)


def test_targets_made_in_inference_mode_are_explained(tiny_vit, images):
    expected = explain(tiny_vit, images, [0, 1, 2, 0])
    with torch.inference_mode():
        found = explain(tiny_vit, images, torch.tensor([0, 1, 2, 0]))
    assert torch.equal(found.weights, expected.weights)


def test_results_of_inference_mode_are_ordinary_tensors(tiny_vit, images):
    with torch.inference_mode():
        explanation = explain(tiny_vit, images * 1, 1)
    for name in ("logits", "target", "bias", "weights", "contributions"):
        assert not getattr(explanation, name).is_inference(), name


def test_a_frozen_model_is_explained(tiny_vit, images):
    expected = explain(tiny_vit, images, 1)
    tiny_vit.requires_grad_(False)
    assert torch.equal(explain(tiny_vit, images, 1).weights, expected.weights)


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_autocast_makes_no_difference(make_vit, make_resnet, family):
    model = (make_vit() if family == "vit" else make_resnet()).float()
    images = torch.rand(2, 6, 8, 8)
    expected = explain(model, images, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(model, images, 1)
        assert torch.is_autocast_enabled("cpu")
    assert found.weights.dtype == torch.float32
    assert torch.equal(found.weights, expected.weights)


def test_float32_is_complete_up_to_rounding(tiny_vit, images):
    explanation = explain(tiny_vit.float(), images.float(), 1)
    # Some 100 float32 contributions of order 0.1, each good to 24 bits, through ten layers.
    assert explanation.completeness_gap.max() < 1e-5


def test_a_half_precision_model_is_explained_in_half_precision(tiny_vit, images):
    explanation = explain(tiny_vit.bfloat16(), images.bfloat16(), 1)
    assert explanation.weights.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits.
    assert explanation.completeness_gap.max() < 0.05


def test_images_in_channels_last_give_the_same(make_resnet):
    model, images = make_resnet(), torch.rand(2, 6, 8, 8, dtype=torch.float64)
    expected = explain(model, images, 1).weights
    found = explain(model, images.to(memory_format=torch.channels_last), 1).weights
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
