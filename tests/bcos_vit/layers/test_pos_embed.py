"""Rotary codes tell offsets only; the sine-cosine code is the published one, and owned up to."""

import numpy as np
import pytest
import torch
from timm.layers import apply_rot_embed_cat

from bcos_vit.layers import RotaryPosition, SinCosPosition, explanation_mode
from tests.reference import array, rotary_angles, sincos_code

CPU = torch.device("cpu")
# Codes are tables in float32: 24 bits of sines of angles up to a grid's side.
CODE_ROUNDING = 1e-6


@pytest.mark.parametrize(("grid", "head_dim"), [((2, 3), 4), ((3, 2), 8), ((4, 4), 64)])
def test_rotary_code_follows_the_formula(grid, head_dim):
    table = array(RotaryPosition(head_dim)(grid, CPU))
    angles = np.repeat(rotary_angles(grid, head_dim), 2, axis=1)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(table, expected, rtol=0, atol=CODE_ROUNDING)


def test_attention_logits_depend_on_offsets_only():
    rows, columns, size = 4, 5, 8
    q, k = torch.randn(2, size, dtype=torch.float64)
    rope = RotaryPosition(size)((rows, columns), CPU)
    turned_q = apply_rot_embed_cat(q.expand(1, 1, rows * columns, size), rope)[0, 0]
    turned_k = apply_rot_embed_cat(k.expand(1, 1, rows * columns, size), rope)[0, 0]
    logits = (turned_q @ turned_k.T).reshape(rows, columns, rows, columns)
    by_offset = {}
    for index in np.ndindex(*logits.shape):
        offset = (index[2] - index[0], index[3] - index[1])
        by_offset.setdefault(offset, []).append(logits[index].item())
    # The code is float32 (see above); the product of two is good to a few 1e-7.
    assert max(max(v) - min(v) for v in by_offset.values()) < 1e-5
    assert max(logits.ravel()) - min(logits.ravel()) > 0.1


def test_rotary_turns_keep_lengths():
    rope = RotaryPosition(8)((3, 3), CPU)
    x = torch.randn(1, 1, 9, 8)
    # float32 arithmetic on eight entries.
    torch.testing.assert_close(
        apply_rot_embed_cat(x, rope).norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=0
    )


def test_rotary_positions_all_differ():
    table = RotaryPosition(4)((3, 4), CPU)
    assert len(torch.unique(table, dim=0)) == 12


def test_rotary_position_has_nothing_to_store():
    assert RotaryPosition(8).state_dict() == {}


@pytest.mark.parametrize("head_dim", [2, 6, 9])
def test_rotary_head_sizes_not_divisible_by_four_are_refused(head_dim):
    with pytest.raises(ValueError, match=f"divisible by 4, got {head_dim}"):
        RotaryPosition(head_dim)


@pytest.mark.parametrize(("grid", "dim"), [((2, 3), 8), ((3, 2), 12), ((1, 1), 16)])
def test_sincos_code_follows_the_formula(grid, dim):
    tokens = torch.randn(2, grid[0] * grid[1], dim, dtype=torch.float64)
    added = SinCosPosition(dim)(tokens, grid) - tokens
    reference = np.broadcast_to(sincos_code(grid, dim), added.shape)
    np.testing.assert_allclose(array(added), reference, rtol=0, atol=CODE_ROUNDING)


def test_sincos_temperature_is_used():
    tokens = torch.zeros(1, 2, 8, dtype=torch.float64)
    added = SinCosPosition(8, temperature=10.0)(tokens, (1, 2))[0]
    np.testing.assert_allclose(
        array(added), sincos_code((1, 2), 8, 10.0), rtol=0, atol=CODE_ROUNDING
    )


def test_sincos_code_stands_behind_the_gate_position_with_a_row_per_image():
    layer, gate = SinCosPosition(8), torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    assert layer.constant_terms == ("position",)
    with explanation_mode({"position": gate}):
        added = layer(torch.zeros(3, 4, 8, dtype=torch.float64), (2, 2))
    reference = gate.numpy()[:, None, None] * sincos_code((2, 2), 8)
    np.testing.assert_allclose(array(added), reference, rtol=0, atol=CODE_ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sincos_code_takes_the_dtype_of_the_tokens(dtype):
    assert SinCosPosition(8)(torch.zeros(1, 4, 8, dtype=dtype), (2, 2)).dtype == dtype


@pytest.mark.parametrize("dim", [4, 6, 10])
def test_sincos_sizes_that_do_not_divide_are_refused(dim):
    with pytest.raises(ValueError, match=f"divisible by 4, at least 8, got {dim}"):
        SinCosPosition(dim)


def test_reprs_name_their_options():
    assert repr(RotaryPosition(8)) == "RotaryPosition(head_dim=8, temperature=100)"
    assert repr(SinCosPosition(8)) == "SinCosPosition(dim=8, temperature=10000)"
