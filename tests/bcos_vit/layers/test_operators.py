"""Compiled layers call the fast paths as they are, and get what eager ones get."""

import copy

import pytest
import torch

from bcos_vit.layers import explanation_mode
from tests.fast_paths import assert_same_in_float64, kernels
from tests.layer_cases import FOLD_SHAPE, GAPS, LAYERS, Case, fold, layouts

NAMES = ("linear", "linear, weights of any length", "mlp", "conv 1x1", "conv 3x3, strided",
         "conv 3x3, in groups", "conv 7x7, depthwise")  # fmt: skip
FOLDED = ("norm, depthwise", "norm before, reflected", "norms on both sides",
          "norms on both sides, 1x1", "conv with bias")  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def by_kernels():
    """Without them, formulas are left to the compiler."""
    with kernels(True):
        yield


@pytest.fixture(autouse=True)
def anew():
    """Nothing remembered of what was compiled before, or after."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(module):
    return torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)


def learnt(layer, x, dy):
    """Output, and gradients of all that takes one."""
    y = layer(x)
    y.backward(dy)
    tensors = (x, *layer.parameters())
    return [y.detach(), *(each.grad for each in tensors if each.grad is not None)]


@pytest.mark.parametrize(
    ("name", "last", "gaps"),
    [
        *((*each.values, None) for each in layouts(NAMES, lambda name: LAYERS[name][1])),
        *((name, False, "turned") for name in ("linear", "conv 1x1", "conv 3x3, in groups")),
    ],
)
def test_outputs_and_gradients_are_those_of_eager_layers(name, last, gaps):
    case = Case.of(*LAYERS[name], last=last)
    layer, spread = case.layer.double(), GAPS.get(gaps, lambda x: x)
    dy = spread(case.dy.double())
    results = []
    for each in (compiled(layer), layer):
        x = spread(case.x.double()).clone(memory_format=torch.preserve_format).detach()
        with torch.no_grad():
            inferred = each(x)
        results.append([inferred, *learnt(each, x.requires_grad_(), dy)])
    assert len(results[0]) == len(results[1])
    assert_same_in_float64(*results)


@pytest.mark.parametrize("name", ["linear", "conv 3x3, in groups"])
@pytest.mark.parametrize("wanted", ["input", "weights"])
def test_gradients_are_of_what_requires_them(name, wanted):
    case = Case.of(*LAYERS[name])
    layer = case.layer.double().requires_grad_(wanted == "weights")
    results = []
    for each in (compiled(layer), layer):
        x = case.x.double().requires_grad_(wanted == "input")
        results.append(learnt(each, x, case.dy.double()))
    assert len(results[0]) == len(results[1]) == 2
    assert_same_in_float64(*results)


@pytest.mark.parametrize(("name", "last"), list(layouts(FOLDED, lambda _: FOLD_SHAPE)))
def test_folded_norms_are_those_of_eager_layers(name, last):
    case = Case.of(fold(name), FOLD_SHAPE, last=last)
    layer, x = case.layer.double(), case.x.double()
    with torch.no_grad():
        assert_same_in_float64([compiled(layer)(x)], [layer(x)])


def test_the_compiler_sees_an_operator_in_training_and_a_formula_while_explaining():
    case, graphs = Case.of(*LAYERS["conv 7x7, depthwise"]), []

    def look(graph, inputs):
        graphs.append(graph.code)
        return graph.forward

    layer = torch.compile(case.layer, backend=look, fullgraph=True)
    layer(case.x)
    with explanation_mode():
        layer(case.x)
    assert ["bcos_vit" in code for code in graphs] == [True, False]
