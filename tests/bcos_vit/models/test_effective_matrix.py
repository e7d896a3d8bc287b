"""W(x) is the product of the layers' matrices, each built by the reference with its scale at x.

Completeness alone would not show it: a network of degree one satisfies ``<gradient, x> = logit``
with its plain gradient too.
"""

import numpy as np
import pytest
import torch

from bcos_vit.explain import explain
from tests.reference import array, resnet_logits, vit_logits

VITS = {
    "rotary": {},
    "additive": {"pos_embed": "sincos"},
    "no position": {"pos_embed": "none"},
    "b 1.5": {"b": 1.5},
    "b 1.5, additive, max_out 2": {"b": 1.5, "pos_embed": "sincos", "max_out": 2},
    "max_out 2": {"max_out": 2},
    "one head": {"num_heads": 1},
    "temperature": {"temperature": 3.0, "logit_bias": 0.7},
    "not square": {"img_size": (4, 6)},
    "stem": {"img_size": 8, "patch_size": 4, "stem_chans": (4, 6)},
    "stem with a stride of 1, b 1.5, max_out 2": {
        "img_size": 8, "patch_size": 4, "stem_chans": (4, 4, 6), "b": 1.5, "max_out": 2,
    },
}  # fmt: skip
RESNETS = {
    "b 2": ({}, (12, 10)),
    "b 1.5": ({"b": 1.5}, (8, 8)),
    "max_out 2": ({"max_out": 2, "temperature": 2.0}, (8, 8)),
    "two blocks": ({"layers": (2, 1, 1, 1)}, (7, 9)),
}


def assert_is_the_product(model, x, trace_of):
    """Every class of every image: W(x), position share, and logit."""
    temperature = array(model.logits.temperature)
    traces = [trace_of(array(image)) for image in x]
    for target in range(model.num_classes):
        explanation = explain(model, x, target)
        for i, trace in enumerate(traces):
            expected = trace.matrix[target].reshape(x.shape[1:]) / temperature
            largest = np.abs(expected).max()
            assert largest > 1e-6
            found = array(explanation.weights[i])
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * largest)
            position = array(explanation.constants.get("position", torch.zeros(len(x)))[i])
            np.testing.assert_allclose(position, trace.offset[target] / temperature, atol=1e-10)
            logit = trace.value[target] / temperature + array(model.logits.bias)[target]
            np.testing.assert_allclose(array(explanation.logit[i]), logit, atol=1e-10)


@pytest.mark.parametrize("variant", VITS)
def test_vit_is_the_product_of_its_matrices(variant, make_vit):
    options = VITS[variant]
    model = make_vit(**options)
    size = options.get("img_size", 4)
    shape = size if isinstance(size, tuple) else (size, size)
    x = torch.rand(2, 6, *shape, dtype=torch.float64)
    patch_size, heads = options.get("patch_size", 2), options.get("num_heads", 2)
    assert_is_the_product(model, x, lambda image: vit_logits(model, image, patch_size, heads))


@pytest.mark.parametrize("variant", RESNETS)
def test_resnet_is_the_product_of_its_matrices(variant, make_resnet):
    options, size = RESNETS[variant]
    model = make_resnet(**options)
    x = torch.rand(1, 6, *size, dtype=torch.float64)
    assert_is_the_product(model, x, lambda image: resnet_logits(model, image))


def plain_gradient(model, x, target):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


def test_plain_gradient_of_a_resnet_is_complete_too_and_yet_is_not_its_matrix(make_resnet):
    model = make_resnet(logit_bias=0.0)
    x = torch.rand(2, 6, 12, 12, dtype=torch.float64)
    gradient, explanation = plain_gradient(model, x, 1), explain(model, x, 1)
    share = (gradient * x).sum((1, 2, 3))
    # Degree one up to the 1e-6 inside the roots of the patch norms.
    torch.testing.assert_close(share, explanation.logit, rtol=1e-2, atol=0)
    assert (gradient - explanation.weights).norm() > 0.1 * explanation.weights.norm()


def test_plain_gradient_of_a_vit_is_not_its_matrix(tiny_vit, images):
    gradient, weights = plain_gradient(tiny_vit, images, 1), explain(tiny_vit, images, 1).weights
    assert (gradient - weights).norm() > 0.1 * weights.norm()


def test_a_resnet_logit_is_the_mean_of_local_logits(make_resnet):
    model = make_resnet(logit_bias=-0.5)
    x = torch.rand(1, 6, 64, 64, dtype=torch.float64)
    features = model.forward_features(x)
    local = [model.fc(features[..., i : i + 1, j : j + 1]) for i in range(2) for j in range(2)]
    expected = torch.stack(local).mean(0)[..., 0, 0] - 0.5
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
