"""Small helpers of the dynamic scale."""

import pytest
import torch

from bcos_vit.layers.scale import apply_scale, check_exponent, max_out_units, unit_norm


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 5, 5)])
def test_every_row_or_filter_has_length_one(shape):
    lengths = unit_norm(torch.randn(shape, dtype=torch.float64)).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dim", "shape"), [(1, (2, 3, 4)), (-1, (2, 6, 2)), (2, (2, 6, 2))])
def test_units_are_taken_along_the_named_dimension(dim, shape):
    x = torch.randn(2, 6, 4)
    y = max_out_units(x, 2, dim)
    assert y.shape == shape
    assert torch.equal(
        y, torch.maximum(*x.movedim(dim, 0).unflatten(0, (-1, 2)).unbind(1)).movedim(0, dim)
    )


def test_the_exponent_comes_back_as_a_float():
    assert check_exponent(2) == 2.0
    assert isinstance(check_exponent(2), float)


@pytest.mark.parametrize("b", [1, 1.5, 2, 3])
def test_scale_keeps_the_sign(b):
    linear = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    y = apply_scale(linear, torch.tensor([2.0], dtype=torch.float64), b)
    expected = 0.25 ** (b - 1) * 0.5
    assert y.tolist() == pytest.approx([-expected, expected], abs=1e-12)
