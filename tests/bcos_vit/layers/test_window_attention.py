"""Window attention is softmax(q k + position) v per window, and a constant matrix explained."""

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosWindowAttention, LayerKit, explanation_mode
from tests.conftest import unsettle
from tests.reference import (
    array,
    bcos_linear_matrix,
    block_diagonal,
    window_attention_matrix,
)

# Map, window, whether windows are shifted.
CASES = {
    "one window": ((3, 3), 3, False),
    "windows that divide": ((4, 6), 2, False),
    "shifted": ((4, 6), 2, True),
    "shifted by one of three": ((6, 3), 3, True),
    "padded": ((5, 4), 3, False),
    "padded and shifted": ((5, 7), 3, True),
    "padded by a lot and shifted": ((5, 5), 4, True),
    "not square": ((5, 4), (2, 3), True),
    "smaller than the window": ((2, 3), 4, True),
    "narrower than the window": ((6, 2), 4, True),
    "one place": ((1, 1), 3, True),
    "windows of one place": ((2, 3), 1, True),
}
KITS = {
    "bcos": LayerKit(),
    "bcos, b 1.5, max_out 2": LayerKit(1.5, 2),
    "conventional": LayerKit(1.0, conventional=True),
    "conventional, b 1.5": LayerKit(1.5, conventional=True),
}


def make(window, shifted=False, kit=KITS["bcos"], dim=8, heads=2, **options):
    layer = BcosWindowAttention(dim, heads, window, shifted=shifted, kit=kit, **options)
    torch.nn.init.normal_(layer.relative_position_bias_table)
    return unsettle(layer).double()


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=KITS)
def kit(request):
    return KITS[request.param]


def definition(layer, maps):
    """Matrix on the flattened map and offset of the whole layer, by the reference."""
    table = array(layer.relative_position_bias_table)
    sides = [2 * side - 1 for side in layer.window_size]
    qkv_bias = None if layer.qkv.bias is None else array(layer.qkv.bias)
    mixing = window_attention_matrix(
        maps, array(layer.qkv.weight), table.reshape(*sides, -1), layer.num_heads,
        layer.window_size, layer.shifted, qkv_bias,
    )  # fmt: skip
    places, dim = maps[..., 0].size, maps.shape[-1]
    # The weights of every place sum to 1, those of padding included: it holds this bias too.
    offset = np.zeros(maps.size) if qkv_bias is None else np.tile(qkv_bias[2 * dim :], places)
    mixed = (mixing @ maps.ravel() + offset).reshape(places, dim)
    weight = array(layer.proj.weight)
    blocks = [bcos_linear_matrix(weight, v, layer.proj.b, layer.proj.max_out) for v in mixed]
    if layer.proj.bias is None:
        return block_diagonal(blocks) @ mixing, np.zeros(maps.size)
    lengths = np.sqrt((weight**2).sum(1))[:, None]
    projection = block_diagonal([lengths * block for block in blocks])
    return projection @ mixing, projection @ offset + np.tile(array(layer.proj.bias), places)


def test_output_is_softmax_per_window_and_head_then_a_projection(case, kit):
    grid, window, shifted = case
    layer = make(window, shifted, kit)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    for maps, outputs in zip(x, layer(x), strict=True):
        matrix, offset = definition(layer, array(maps))
        expected = (matrix @ array(maps).ravel() + offset).reshape(maps.shape)
        np.testing.assert_allclose(array(outputs), expected, rtol=0, atol=1e-10)


def test_gradient_while_explaining_is_the_matrix_and_the_gate_carries_the_biases(case, kit):
    grid, window, shifted = case
    layer = make(window, shifted, kit)
    x = torch.randn(*grid, 8, dtype=torch.float64)
    gate = torch.ones(1, dtype=torch.float64)

    def explained(x, gate):
        with explanation_mode({"biases": gate}):
            return layer(x[None]).ravel()

    found, carried = torch.autograd.functional.jacobian(explained, (x, gate))
    matrix, offset = definition(layer, array(x))
    np.testing.assert_allclose(array(found).reshape(matrix.shape), matrix, rtol=0, atol=1e-10)
    np.testing.assert_allclose(array(carried)[:, 0], offset, rtol=0, atol=1e-10)


def test_plain_gradient_is_not_the_matrix():
    layer = make(2, kit=LayerKit(1.0))
    x = torch.randn(4, 4, 8, dtype=torch.float64)
    plain = torch.autograd.functional.jacobian(lambda t: layer(t[None]), x)
    with explanation_mode():
        explained = torch.autograd.functional.jacobian(lambda t: layer(t[None]), x)
    assert (plain - explained).abs().max() > 1e-2


def changed(layer, grid, row, column):
    """Places whose output depends on the input at one place."""
    x = torch.randn(1, *grid, 8, dtype=torch.float64)
    y = x.clone()
    y[0, row, column] += 1
    return (layer(y) - layer(x)).abs().amax(-1)[0] > 1e-12


def test_a_place_is_seen_in_its_window_only():
    seen = torch.zeros(4, 6, dtype=torch.bool)
    seen[2:4, 2:4] = True
    assert torch.equal(changed(make(2), (4, 6), 3, 2), seen)


def test_shifted_windows_reach_over_the_borders_of_the_others():
    seen = torch.zeros(4, 6, dtype=torch.bool)
    seen[1:3, 1:3] = True
    assert torch.equal(changed(make(2, shifted=True), (4, 6), 2, 2), seen)


def test_opposite_edges_stay_apart_in_shifted_windows():
    seen = torch.zeros(4, 6, dtype=torch.bool)
    seen[0, 0] = True
    assert torch.equal(changed(make(2, shifted=True), (4, 6), 0, 0), seen)


def test_position_adds_nothing(case):
    grid, window, shifted = case
    with explanation_mode():
        y = make(window, shifted)(torch.zeros(1, *grid, 8, dtype=torch.float64))
    assert (y == 0).all()


def test_order_matters_through_the_table_alone():
    layer = make(2)
    x = torch.randn(1, 2, 2, 8, dtype=torch.float64)
    flipped = x.flip(2)
    assert (layer(flipped) - layer(x).flip(2)).abs().max() > 1e-3
    torch.nn.init.zeros_(layer.relative_position_bias_table)
    torch.testing.assert_close(layer(flipped), layer(x).flip(2), rtol=0, atol=1e-12)


def test_parameters_do_not_depend_on_the_map():
    layer = make(7, shifted=True)
    assert layer.relative_position_bias_table.shape == (13 * 13, 2)
    for grid in ((2, 3), (7, 7), (8, 15)):
        assert layer(torch.randn(1, *grid, 8, dtype=torch.float64)).shape == (1, *grid, 8)


def test_queries_keys_values_and_table_learn(kit):
    layer = make(2, shifted=True, kit=kit)
    layer(torch.randn(2, 4, 4, 8, dtype=torch.float64)).square().sum().backward()
    assert (layer.qkv.weight.grad.reshape(3, -1).abs().sum(1) > 0).all()
    assert (layer.relative_position_bias_table.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half(dtype):
    layer = BcosWindowAttention(8, 2, 2, shifted=True).to(dtype)
    y = layer(torch.randn(1, 5, 4, 8).to(dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_applied_to_the_output_in_training_only(training):
    layer = make(2, proj_drop=0.5).train(training)
    y = layer(torch.randn(4, 4, 4, 8, dtype=torch.float64))
    assert (y == 0).any() == training


def test_biases_are_those_asked_for():
    kit = KITS["conventional"]
    layer = BcosWindowAttention(8, 2, kit=kit, qkv_bias=False, proj_bias=False)
    assert layer.qkv.bias is None
    assert layer.proj.bias is None
    assert BcosWindowAttention(8, 2, kit=kit).qkv.bias.shape == (24,)
    assert BcosWindowAttention(8, 2).qkv.bias is None


@pytest.mark.parametrize(
    ("heads", "window", "message"),
    [
        (3, 7, "num_heads must divide dim, got 3 for 8"),
        (2, 0, "window_size must be one or two whole numbers >= 1, got 0"),
        (2, (2, 3, 4), r"window_size must be .*got \(2, 3, 4\)"),
    ],
)
def test_wrong_options_are_refused(heads, window, message):
    with pytest.raises(ValueError, match=message):
        BcosWindowAttention(8, heads, window)
