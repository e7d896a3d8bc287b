"""BcosLinear is |cos(x, w)|^(b-1) w x, unit by unit, and nothing else."""

import math

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosLinear, explanation_mode
from tests.reference import array, bcos_linear_matrix


def expected(layer, x):
    weight = array(layer.weight)
    rows = [
        bcos_linear_matrix(weight, v, layer.b, layer.max_out) @ v
        for v in array(x).reshape(-1, x.shape[-1])
    ]
    return np.stack(rows).reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("max_out", [1, 2, 3])
@pytest.mark.parametrize("b", [1, 1.25, 1.5, 2, 2.5, 3])
def test_output_follows_the_formula(b, max_out):
    layer = BcosLinear(7, 5, b=b, max_out=max_out).double()
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    np.testing.assert_allclose(array(layer(x)), expected(layer, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("b", [1, 1.25, 2, 3])
def test_gradient_while_explaining_is_the_matrix(b):
    layer = BcosLinear(6, 4, b=b, max_out=2).double()
    x = torch.randn(6, dtype=torch.float64)
    with explanation_mode():
        matrix = torch.autograd.functional.jacobian(layer, x)
    reference = bcos_linear_matrix(array(layer.weight), array(x), b, 2)
    np.testing.assert_allclose(array(matrix), reference, rtol=0, atol=1e-10)


def test_max_out_takes_neighbouring_units():
    layer = BcosLinear(2, 2, b=1, max_out=2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
    y = layer(torch.tensor([3.0, 2.0], dtype=torch.float64))
    assert y.tolist() == [3.0, -2.0]


def test_max_out_picks_the_largest_response_not_the_best_aligned():
    layer = BcosLinear(2, 1, b=2, max_out=2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, 0], [0, 1]]))
    y = layer(torch.tensor([4.0, 3.0], dtype=torch.float64))
    assert y.item() == pytest.approx(3 * 3 / 5, abs=1e-10)


def test_length_of_weights_does_not_matter():
    layer = BcosLinear(5, 3, max_out=2).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        layer.weight *= torch.rand(6, 1, dtype=torch.float64) * 100 + 0.01
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("b", [1.5, 2, 3])
def test_output_is_bounded_by_the_input_length(b):
    layer = BcosLinear(5, 64, b=b).double()
    x = torch.randn(9, 5, dtype=torch.float64)
    assert (layer(x).abs() <= x.norm(dim=1, keepdim=True) + 1e-12).all()


def test_b_two_equals_the_limit_of_the_general_branch():
    fast, general = BcosLinear(5, 3, b=2).double(), BcosLinear(5, 3, b=2 + 1e-13).double()
    general.load_state_dict(fast.state_dict())
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(fast(x), general(x), rtol=0, atol=1e-10)


def test_explaining_changes_no_output():
    layer = BcosLinear(5, 3, b=1.5, max_out=2)
    x = torch.randn(4, 5)
    with explanation_mode():
        explained = layer(x)
    assert torch.equal(explained, layer(x))


def test_weights_get_gradients_when_training():
    layer = BcosLinear(5, 3)
    layer(torch.randn(4, 5)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_gradient_when_training_is_the_derivative_of_the_formula():
    layer = BcosLinear(4, 3, b=1.5, max_out=2).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("b", [1.25, 2, 3])
def test_zero_tokens_give_zero_and_finite_gradients(b, dtype):
    layer = BcosLinear(8, 4, b=b, max_out=2).to(dtype)
    x = torch.zeros(3, 8, dtype=dtype)
    x[1] = 1
    x.requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert (y[0] == 0).all()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-5, 300.0])
def test_half_precision_norms_neither_underflow_nor_overflow(scale):
    layer = BcosLinear(64, 8)
    x = torch.randn(5, 64) * scale
    half = layer.half()(x.half()).float()
    exact = layer.float()(x.half().float())
    # Half precision keeps 11 bits; 64 products are summed, subnormals below 6e-8 lose more.
    torch.testing.assert_close(half, exact, rtol=0, atol=8e-3 * scale)
    assert (half.abs() > 0).any()


@pytest.mark.parametrize("b", [1.1, 1.25, 1.5])
def test_gradient_is_finite_where_the_cosine_is_zero(b):
    layer = BcosLinear(2, 1, b=b).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0]]))
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    assert layer.weight.grad.isfinite().all()


def test_zero_weights_give_zero():
    layer = BcosLinear(3, 2)
    torch.nn.init.zeros_(layer.weight)
    assert (layer(torch.randn(4, 3)) == 0).all()


def test_autocast_keeps_the_norm_in_full_precision():
    layer = BcosLinear(16, 4)
    x = torch.rand(3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; the response enters squared.
    torch.testing.assert_close(y.float(), layer(x), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("b", [0.99, 0, -1, math.nan])
def test_exponent_below_one_is_refused(b):
    with pytest.raises(ValueError, match=rf"b must be at least 1, got {b}"):
        BcosLinear(3, 2, b=b)


@pytest.mark.parametrize("max_out", [0, -1])
def test_max_out_below_one_is_refused(max_out):
    with pytest.raises(ValueError, match=rf"max_out must be at least 1, got {max_out}"):
        BcosLinear(3, 2, max_out=max_out)


def test_repr_names_sizes_and_options():
    assert repr(BcosLinear(3, 2, b=1.5, max_out=4)) == "BcosLinear(3, 2, b=1.5, max_out=4)"
