"""Whole networks by fast paths, and compiled, are as good as by the plain formulas."""

import copy
import shutil
from contextlib import nullcontext
from functools import cache

import pytest
import torch

from bcos_vit.explain import explain
from bcos_vit.layers.fast import plain_formulas
from tests.conftest import settle_statistics, unsettle
from tests.contract.families import FAMILIES, FAMILY_NAMES, create, pictures
from tests.fast_paths import assert_same_in_float64, distance, kernels, size

# Wide networks cost most of the time; without kernels, the others have every kind of layer too.
NARROW = [name for name in FAMILY_NAMES if "resne" not in name and "inception" not in name]
QUANTITIES = ("logits", "W(x)", "gradients of inputs", "gradients of parameters")


def network(name, seed=0, **options):
    """A float32 network of a family, with statistics that fit, and images in float32."""
    torch.manual_seed(seed)
    family = FAMILIES[name]
    model = unsettle(create(family, logit_bias=0.0, **options))
    model = settle_statistics(model, pictures(family, 4)).float()
    return model, pictures(family).float()


def quantities(model, x, dtype, plain=False):
    """What a network computes: explained, then learning."""
    model, x = copy.deepcopy(model).to(dtype), x.to(dtype, copy=True)
    torch.manual_seed(0)
    dy = torch.randn(len(x), model.num_classes).to(dtype)
    with plain_formulas() if plain else nullcontext():
        explanation = explain(model, x, 1)
        y = model.train()(x.requires_grad_())
        y.backward(dy)
    return {
        "logits": [explanation.logits, y.detach()],
        "W(x)": [explanation.weights],
        "gradients of inputs": [x.grad],
        "gradients of parameters": [each.grad for each in model.parameters()],
    }


@cache
def comparison(name, with_kernels, seed):
    """All quantities: by fast paths and plainly, in float32 and in float64."""
    model, x = network(name, seed)
    with kernels(with_kernels):
        return {
            (dtype, plain): quantities(model, x, dtype, plain)
            for dtype in (torch.float32, torch.float64)
            for plain in (False, True)
        }


def ratios(names, with_kernels, quantity):
    """Errors of fast paths, in those of the plain formulas, over networks and seeds."""
    found = []
    for name in names:
        for seed in range(2 if name in NARROW else 1):
            made = comparison(name, with_kernels, seed)
            truth = made[torch.float64, True][quantity]
            fast, plain = (made[torch.float32, each][quantity] for each in (False, True))
            found.append(distance(fast, truth) / distance(plain, truth))
    return torch.stack(found)


BY = pytest.mark.parametrize(
    ("with_kernels", "names"), [(True, FAMILY_NAMES), (False, NARROW)], ids=["C", "PyTorch"]
)


@BY
def test_in_float64_networks_compute_the_same(with_kernels, names):
    for name in names:
        made = comparison(name, with_kernels, 0)
        for quantity in QUANTITIES:
            found, truth = (made[torch.float64, plain][quantity] for plain in (False, True))
            # Some 20 layers make the most of the rounding of each.
            assert_same_in_float64(found, truth, tolerance=1e-12)


@BY
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_errors_in_float32_are_at_most_half_as_large_again(with_kernels, names, quantity):
    # A network has few logits, and the rounding of its first layers moves all of them together: for
    # one network the ratio is a matter of luck. Over all of them it is one of arithmetic.
    found = ratios(names, with_kernels, quantity)
    assert found.log().mean().exp() <= 1.5
    assert found.max() < 10


# --- compiled -----------------------------------------------------------------------------------

# A layer of each kind: the compiler takes seconds for each.
COMPILED = {
    "bcos_vgg11_bnu": {"stages": ((16,), (32,)), "head_hidden_size": 32},
    "bcos_vit_tiny_patch16_224": {"depth": 1},
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_networks_compute_learn_and_are_explained(name):
    torch._dynamo.reset()
    model, x = network(name, **COMPILED[name])
    compiled = torch.compile(copy.deepcopy(model))
    explanation, expected = explain(compiled, x, 1), explain(model, x, 1)
    # float32, in another order of summation.
    assert_close([explanation.logits], [expected.logits])
    assert_close([explanation.weights], [expected.weights])
    assert (explanation.completeness_gap / expected.contributions.abs().sum((1, 2))).max() < 1e-5
    results = []
    for each in (compiled, model):
        images = x.clone().requires_grad_()
        each(images).square().sum().backward()
        results.append([images.grad, *(parameter.grad for parameter in each.parameters())])
    assert_close(*results)
    torch._dynamo.reset()


def assert_close(found, expected):
    assert distance(found, expected) < 1e-4 * size(expected)
