"""Attention is softmax(q k) v per head, and a constant matrix of values while explaining."""

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosAttention, LayerKit, RotaryPosition, explanation_mode
from tests.conftest import unsettle
from tests.reference import (
    array,
    attention_matrix,
    attention_weights,
    bcos_linear_matrix,
    block_diagonal,
)


def make(dim=8, heads=2, b=2.0, max_out=1, **options):
    return unsettle(BcosAttention(dim, heads, kit=LayerKit(b, max_out), **options)).double()


def softmax_attention(tokens, qkv, heads):
    """Head by head, straight from the definition."""
    dim = tokens.shape[1]
    size = dim // heads
    outputs = np.zeros_like(tokens)
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        q, k, v = (tokens @ qkv[i * dim : (i + 1) * dim][mine].T for i in range(3))
        outputs[:, mine] = attention_weights(q, k) @ v
    return outputs


def projection(layer, mixed):
    weight = array(layer.proj.weight)
    return [bcos_linear_matrix(weight, v, layer.proj.b, layer.proj.max_out) for v in mixed]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("b", [1.5, 2])
def test_output_is_softmax_per_head_then_a_bcos_projection(heads, b):
    layer = make(heads=heads, b=b, max_out=2)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    for tokens, outputs in zip(x, layer(x), strict=True):
        mixed = softmax_attention(array(tokens), array(layer.qkv.weight), heads)
        blocks = projection(layer, mixed)
        expected = np.stack([m @ v for m, v in zip(blocks, mixed, strict=True)])
        np.testing.assert_allclose(array(outputs), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("with_rope", [False, True])
def test_gradient_while_explaining_is_attention_kron_values(with_rope):
    layer = make(max_out=2, b=1.5)
    x = torch.randn(6, 8, dtype=torch.float64)
    rope = RotaryPosition(4)((2, 3), x.device) if with_rope else None
    turns = None if rope is None else (array(rope)[:, :4:2], array(rope)[:, 4::2])
    with explanation_mode():
        found = torch.autograd.functional.jacobian(lambda t: layer(t[None], rope).ravel(), x)
    mixing = attention_matrix(array(x), array(layer.qkv.weight), 2, turns)
    mixed = (mixing @ array(x).ravel()).reshape(6, 8)
    expected = block_diagonal(projection(layer, mixed)) @ mixing
    np.testing.assert_allclose(array(found).reshape(48, 48), expected, rtol=0, atol=1e-10)


def test_plain_gradient_is_not_the_matrix():
    layer = make(b=1)
    x = torch.randn(4, 8, dtype=torch.float64)
    plain = torch.autograd.functional.jacobian(lambda t: layer(t[None]), x)
    with explanation_mode():
        explained = torch.autograd.functional.jacobian(lambda t: layer(t[None]), x)
    assert (plain - explained).abs().max() > 1e-2


def test_queries_keys_and_values_learn():
    layer = make()
    layer(torch.randn(2, 4, 8, dtype=torch.float64)).sum().backward()
    assert (layer.qkv.weight.grad.reshape(3, -1).abs().sum(1) > 0).all()


def test_order_of_tokens_does_not_matter_without_position():
    layer = make()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    order = torch.randperm(5)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)


def test_order_of_tokens_matters_with_rotary_position():
    layer = make()
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    rope = RotaryPosition(4)((2, 2), x.device)
    order = [1, 0, 3, 2]
    assert (layer(x[:, order], rope) - layer(x, rope)[:, order]).abs().max() > 1e-3


def test_rotary_position_adds_nothing():
    layer = make()
    rope = RotaryPosition(4)((2, 2), torch.device("cpu"))
    with explanation_mode():
        y = layer(torch.zeros(1, 4, 8, dtype=torch.float64), rope)
    assert (y == 0).all()


def test_rotary_code_keeps_half_precision_half():
    layer = BcosAttention(8, 2).bfloat16()
    rope = RotaryPosition(4)((2, 2), torch.device("cpu"))
    assert layer(torch.randn(1, 4, 8).bfloat16(), rope).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_applied_to_the_output_in_training_only(training):
    layer = make(proj_drop=0.5).train(training)
    y = layer(torch.randn(4, 16, 8, dtype=torch.float64))
    assert (y == 0).any() == training


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="num_heads must divide dim, got 3 for 8"):
        BcosAttention(8, 3)


def test_no_heads_are_refused():
    with pytest.raises(ValueError, match="num_heads must divide dim, got 0 for 8"):
        BcosAttention(8, 0)
