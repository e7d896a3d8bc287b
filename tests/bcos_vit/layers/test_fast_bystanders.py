"""Fast forms beside what watches, records or batches operations: the numbers of plain formulas."""

from functools import partial

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from bcos_vit.layers import (
    BcosBatchNorm2d,
    BcosConv2d,
    BcosLayerNorm,
    BcosLinear,
    BcosMlp,
    explanation_mode,
)
from bcos_vit.layers.fast import plain_formulas
from bcos_vit.layers.pos_embed import turn

LAYERS = {
    "linear": (lambda: BcosLinear(4, 3), (2, 5, 4)),
    "conv": (lambda: BcosConv2d(2, 3, 3, padding=1), (2, 2, 5, 5)),
    "layer norm": (lambda: BcosLayerNorm(4), (2, 5, 4)),
    "batch norm": (lambda: BcosBatchNorm2d(2), (3, 2, 5, 5)),
}


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_checkpoints_that_keep_some_operations_give_the_same_gradients():
    net = torch.nn.Sequential(BcosConv2d(3, 4, 3), BcosConv2d(4, 4, 3)).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def policy(_, operation, *args, **kwargs):
        kept = operation == torch.ops.aten.convolution.default
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    def gradient(run):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(run(leaf).square().sum(), leaf)[0]

    contexts = partial(create_selective_checkpoint_contexts, policy)
    found = gradient(lambda leaf: checkpoint(net, leaf, use_reentrant=False, context_fn=contexts))
    assert_close(found, gradient(net))


def test_recorded_operations_compute_what_the_layer_computes():
    layer, x = BcosConv2d(3, 4, 3).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = make_fx(layer)(x)
    other = torch.randn_like(x)
    assert_close(graph(other), layer(other))


@pytest.mark.parametrize("name", LAYERS)
def test_several_gradients_at_once_are_those_one_by_one(name):
    make, shape = LAYERS[name]
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    several = torch.randn(3, *y.shape, dtype=torch.float64)
    [found] = torch.autograd.grad(y, x, several, is_grads_batched=True, retain_graph=True)
    for each, dy in zip(found, several, strict=True):
        assert_close(each, torch.autograd.grad(y, x, dy, retain_graph=True)[0])


@pytest.mark.parametrize("explaining", [False, True])
def test_a_weight_with_gaps_is_read_as_what_it_shows(explaining):
    layer, weight = BcosLayerNorm(8).double(), torch.randn(8, 3, dtype=torch.float64)[:, 1]
    x, dy = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    gradients = []
    for plain in (False, True):
        leaf = x.clone().requires_grad_()
        with explanation_mode() if explaining else torch.enable_grad():
            if plain:
                with plain_formulas():
                    y = torch.func.functional_call(layer, {"weight": weight}, (leaf,))
            else:
                y = torch.func.functional_call(layer, {"weight": weight}, (leaf,))
        gradients.append(torch.autograd.grad(y, leaf, dy)[0])
    assert_close(*gradients)


def test_layers_that_differ_are_not_taken_for_alike():
    mlp = BcosMlp(4, 8).double()
    mlp.fc2 = BcosLinear(8, 4, unit_norm=False).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        assert_close(mlp(x), mlp.fc2(mlp.fc1(x)))


def test_a_position_code_of_another_length_is_refused():
    x, rope = torch.randn(1, 6, 24), torch.randn(4, 16)
    with pytest.raises(RuntimeError, match="must match"):
        turn(x, rope, 16)


def test_nothing_learns_while_explaining():
    with explanation_mode():
        assert not BcosLayerNorm(4)(torch.randn(2, 4)).requires_grad
        assert not BcosLinear(4, 4)(torch.randn(2, 4)).requires_grad
