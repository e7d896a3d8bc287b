"""Every pass, by its C kernel and by PyTorch, computes its formula and nothing else."""

import itertools

import numpy as np
import pytest
import torch

from bcos_vit.kernels import passes
from bcos_vit.kernels.passes import Window
from tests.fast_paths import kernels
from tests.reference import array, turn

# Kernels work in tiles of 1024 places, chunks of 32 channels or rows, 16 lanes and 64 columns: one
# less, one more, and what is left over of several.
MAPS = {
    "one number": ((1, 1, 1, 1), (1,)),
    "one place": ((3, 66, 1, 1), (1, 2, 66)),
    "one channel": ((2, 1, 9, 4), (1,)),
    "few": ((2, 6, 5, 7), (1, 2, 6)),
    "many channels": ((2, 70, 3, 11), (1, 2, 70)),
    "groups of one lane": ((1, 48, 4, 4), (3,)),
    "many places": ((2, 4, 33, 32), (1, 2, 4)),
    "whole tiles": ((1, 32, 32, 32), (1,)),
}
TOKENS = {
    "one number": ((1, 1), (1,)),
    "few": ((7, 6), (1, 3, 6)),
    "many channels": ((2, 5, 70), (1, 2, 70)),
    "many rows": ((65, 3), (1, 3)),
    "whole chunks": ((64, 32), (1, 2)),
}
LAYOUTS = [
    (name, layout, shape, count)
    for layout, sizes in (("planes", MAPS), ("last", MAPS), ("tokens", TOKENS))
    for name, (shape, groups) in sizes.items()
    for count in groups
]
EVERY_LAYOUT = pytest.mark.parametrize(
    ("layout", "shape", "groups"),
    [pytest.param(*each, id=f"{name}, {each[0]}, {each[2]}") for name, *each in LAYOUTS],
)
ONE_GROUP = pytest.mark.parametrize(
    ("layout", "shape"),
    [pytest.param(*each[:2], id=f"{name}, {each[0]}") for name, *each in LAYOUTS if each[2] == 1],
)
MAP_LAYOUTS = pytest.mark.parametrize("layout", ["planes", "last"])
WINDOWS = {
    "one by one": (Window(1), Window(1)),
    "one by one, strided": (Window(1, stride=2), Window(1, stride=3)),
    "one by one, padded": (Window(1, pad=1), Window(1, pad=2)),
    "plain": (Window(3), Window(3)),
    "padded": (Window(3, pad=1), Window(3, pad=1)),
    "strided": (Window(3, stride=2, pad=1), Window(3, stride=2, pad=1)),
    "stem": (Window(7, stride=2, pad=3), Window(7, stride=2, pad=3)),
    "patchify": (Window(2, stride=2), Window(2, stride=2)),
    "dilated": (Window(3, dilation=2, pad=2), Window(3, dilation=2, pad=2)),
    "wide padding": (Window(2, pad=4), Window(3, pad=5)),
    "row": (Window(1), Window(7, pad=3)),
    "column": (Window(5, stride=2, dilation=2, pad=1), Window(1)),
    "all of it": (Window(9), Window(8)),
    "stride past the end": (Window(2, stride=6), Window(2, stride=7)),
}
EVERY_WINDOW = pytest.mark.parametrize("window", WINDOWS)
EPS = 1e-6


@pytest.fixture(params=["C", "PyTorch"], scope="module")
def by(request):
    """By which of the two a test is run."""
    with kernels(request.param == "C"):
        yield request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def made(layout, shape, dtype, low=None):
    """Random numbers in a layout: normal, or uniform above ``low``."""
    x = torch.randn(shape, dtype=torch.float64) if low is None else torch.rand(shape) + low
    last = {"memory_format": torch.channels_last} if layout == "last" else {}
    return x.to(dtype).contiguous(**last)


def channel_axis(x):
    return 1 if x.ndim == 4 else -1


def per_group(shape, groups):
    """Shape of a map with a number per group."""
    return (shape[0], groups, *shape[2:]) if len(shape) == 4 else (*shape[:-1], groups)


def spread(values, like):
    """A number per channel, shaped to meet the array ``like``."""
    return values[:, None, None] if like.ndim == 4 else values


def each_channel(values, like):
    """A number per group, repeated for every channel of the array ``like``."""
    axis = channel_axis(like)
    return np.repeat(values, like.shape[axis] // values.shape[axis], axis)


def group_sums(x, groups):
    """Sums over the channels of each group, one channel after the other."""
    axis = channel_axis(x)
    chans = np.moveaxis(x, axis, 0)
    size = len(chans) // groups
    sums = [sum(chans[g * size + c] for c in range(size)) for g in range(groups)]
    return np.moveaxis(np.stack(sums), 0, axis)


def seen(window, size):
    """For every place a window makes along an axis, the places it sees."""
    return [
        [i for i in starts if 0 <= i < size]
        for starts in (
            [p * window.stride - window.pad + k * window.dilation for k in range(window.kernel)]
            for p in range(window.made(size))
        )
    ]


def assert_close(found, expected, scale=None):
    """Equal up to the rounding of sums of up to 100 numbers of ``scale``, each rounded itself."""
    bound = {torch.float32: 2e-6, torch.float64: 4e-15}[found.dtype]
    scale = np.abs(expected) if scale is None else scale
    assert found.shape == expected.shape
    assert (np.abs(array(found) - expected) <= bound * scale).all()


def assert_layout(found, layout):
    if layout == "last":
        assert found.is_contiguous(memory_format=torch.channels_last)
    else:
        assert found.is_contiguous()


# --- squares ------------------------------------------------------------------------------------


@EVERY_LAYOUT
def test_squares_are_summed_over_the_channels_of_each_group(by, layout, shape, groups, dtype):
    x = made(layout, shape, dtype)
    found = passes.squares(x, groups)
    assert_close(found, group_sums(array(x) ** 2, groups))
    if by == "C":
        assert_layout(found, layout)


@ONE_GROUP
def test_gains_multiply_what_is_squared(by, layout, shape, dtype):
    x = made(layout, shape, dtype)
    gains = torch.randn(shape[channel_axis(x)], dtype=dtype)
    expected = group_sums((array(x) * spread(array(gains), x)) ** 2, 1)
    assert_close(passes.squares(x, gains=gains), expected)


@pytest.mark.parametrize("view", ["every other column", "turned", "some channels", "repeated"])
def test_squares_of_a_view_with_gaps_are_those_of_its_numbers(by, view, dtype):
    x = torch.randn(3, 8, 6, 10, dtype=dtype)
    x = {
        "every other column": x[..., ::2],
        "turned": x.transpose(2, 3),
        "some channels": x[:, 2:6],
        "repeated": x[:1].expand(4, -1, -1, -1),
    }[view]
    assert_close(passes.squares(x, 2), group_sums(array(x) ** 2, 2))


# --- what a filter sees -------------------------------------------------------------------------


def inverse_norm(x, rows, columns, groups, gains=None):
    """One over the length of every patch, place by place."""
    x = x if gains is None else x * spread(gains, x)
    squares = group_sums(x**2, groups)
    down, right = seen(rows, x.shape[2]), seen(columns, x.shape[3])
    sums = np.empty((*squares.shape[:2], len(down), len(right)))
    for (i, mine), (j, others) in itertools.product(enumerate(down), enumerate(right)):
        sums[:, :, i, j] = squares[:, :, mine][..., others].sum((2, 3))
    return 1 / np.sqrt(sums + EPS)


@EVERY_WINDOW
@MAP_LAYOUTS
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_inverse_norms_are_of_what_each_filter_sees(by, window, layout, groups, dtype):
    x = made(layout, (2, 6, 9, 8), dtype)
    x[:, :, :4, :4] = 0  # nothing but eps
    found = passes.inverse_norm(x, *WINDOWS[window], groups, EPS)
    assert_close(found, inverse_norm(array(x), *WINDOWS[window], groups))
    assert_layout(found, layout)


@EVERY_WINDOW
@MAP_LAYOUTS
@pytest.mark.parametrize("chans", [1, 5])
def test_gains_multiply_what_a_filter_sees(by, window, layout, chans, dtype):
    x, gains = made(layout, (2, chans, 9, 8), dtype), torch.randn(chans, dtype=dtype)
    found = passes.inverse_norm(x, *WINDOWS[window], 1, EPS, gains)
    assert_close(found, inverse_norm(array(x), *WINDOWS[window], 1, array(gains)))


@EVERY_WINDOW
@MAP_LAYOUTS
@pytest.mark.parametrize("groups", [1, 5])
def test_numbers_go_back_to_all_places_that_their_filter_saw(by, window, layout, groups, dtype):
    rows, columns = WINDOWS[window]
    x = made(layout, (2, groups, rows.made(9), columns.made(8)), dtype)
    numbers, expected, scale = array(x), np.zeros((2, groups, 9, 8)), np.zeros((2, groups, 9, 8))
    for i, mine in enumerate(seen(rows, 9)):
        for j, others in enumerate(seen(columns, 8)):
            for h, w in itertools.product(mine, others):
                expected[:, :, h, w] += numbers[:, :, i, j]
                scale[:, :, h, w] += np.abs(numbers[:, :, i, j])
    assert_close(passes.box_back(x, rows, columns, (9, 8)), expected, scale)


# --- the dynamic scale --------------------------------------------------------------------------


@EVERY_LAYOUT
@pytest.mark.parametrize("keep", [True, False])
def test_responses_are_scaled_in_place(by, layout, shape, groups, keep, dtype):
    u = made(layout, shape, dtype)
    chans = shape[channel_axis(u)]
    gain, length = torch.randn(chans, dtype=dtype), torch.rand(chans, dtype=dtype) + 0.5
    inverse = made(layout, per_group(shape, groups), dtype, low=0.1)
    before = array(u)
    scale = np.abs(before) * each_channel(array(inverse), before)
    scale = scale * spread(array(gain) * array(length), before)
    kept = passes.scale_(u, gain, length, inverse, keep)
    assert_close(u, before * scale)
    assert_layout(u, layout)
    if keep:
        assert_close(kept, scale)
        assert_layout(kept, layout)
    else:
        assert kept is None


@EVERY_LAYOUT
def test_gradients_of_scaled_responses(by, layout, shape, groups, dtype):
    dy, y = made(layout, shape, dtype), made(layout, shape, dtype)
    root = torch.rand(shape[channel_axis(y)], dtype=dtype) + 0.5
    inverse = made(layout, per_group(shape, groups), dtype, low=0.1)
    du, place_sums, chan_sums = passes.scale_back(dy, y, root, inverse)
    grads, values = array(dy), array(y)
    slope = np.sqrt(np.abs(values) * each_channel(array(inverse), values))
    assert_close(du, 2 * grads * slope * spread(array(root), values))
    products = grads * values
    assert_close(place_sums, group_sums(products, groups), group_sums(np.abs(products), groups))
    others = tuple(i for i in range(y.ndim) if i != channel_axis(y) % y.ndim)
    # Up to 2112 numbers, in partial sums.
    assert_close(chan_sums, products.sum(others), np.abs(products).sum(others))
    assert_layout(du, layout)


def test_the_gradient_is_that_of_the_scale(by, dtype):
    """... by autograd, of ``root^2 u |u| inverse``."""
    u = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    root, inverse = torch.rand(6).double() + 0.5, torch.rand(2, 2, 4, 5).double() + 0.1
    y = root.square()[:, None, None] * u * u.abs() * inverse.repeat_interleave(3, 1)
    dy = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, u, dy)
    du, _, _ = passes.scale_back(*(t.detach().to(dtype) for t in (dy, y, root, inverse)))
    assert_close(du, array(expected))


@EVERY_LAYOUT
def test_sums_of_products_are_added_in_place(by, layout, shape, groups, dtype):
    y, x = made(layout, shape, dtype), made(layout, shape, dtype)
    factor = made(layout, per_group(shape, groups), dtype)
    before, added = array(y), array(x) * each_channel(array(factor), array(x))
    passes.add_scaled_(y, x, factor)
    assert_close(y, before + added, np.abs(before) + np.abs(added))


@MAP_LAYOUTS
@pytest.mark.parametrize("name", MAPS)
def test_affine_maps_have_numbers_per_channel(by, layout, name, dtype):
    shape = MAPS[name][0]
    g, x = made(layout, shape, dtype), made(layout, shape, dtype)
    a, b, k = torch.randn(3, shape[1], dtype=dtype)
    grads, values = spread(array(a), g) * array(g), array(x) - spread(array(k), x)
    values = spread(array(b), x) * values
    found = passes.affine(g, x, a, b, k)
    # A small difference of large numbers is as good as they are, and may be the whole result.
    scale = np.abs(grads) + np.abs(values)
    assert_close(found, grads + values, scale)
    assert_layout(found, layout)


@MAP_LAYOUTS
def test_affine_maps_do_not_cancel_a_large_mean(by, layout, dtype):
    g, x = made(layout, (2, 5, 9, 7), dtype), made(layout, (2, 5, 9, 7), dtype) + 1e4
    a, b, k = torch.zeros(5, dtype=dtype), torch.ones(5, dtype=dtype), x.mean((0, 2, 3))
    assert_close(passes.affine(g, x, a, b, k), array(x) - spread(array(k), x))


@MAP_LAYOUTS
@pytest.mark.parametrize("name", MAPS)
def test_products_are_summed_over_all_places_of_a_channel(by, layout, name, dtype):
    g, x = (made(layout, MAPS[name][0], dtype) for _ in range(2))
    products = array(g) * array(x)
    found = passes.products(g, x)
    assert_close(found, products.sum((0, 2, 3)), np.abs(products).sum((0, 2, 3)))


@EVERY_LAYOUT
def test_centred_gradients_have_no_mean(by, layout, shape, groups, dtype):
    if layout == "tokens":
        shape, groups = (*shape[:-1], groups, shape[-1] // groups), 1  # each with its own mean
    g = made(layout, shape, dtype)
    weight = torch.randn(shape[1 if layout != "tokens" else -1], dtype=dtype)
    if layout == "tokens":
        scale = torch.rand(*shape[:-1], 1, dtype=dtype) + 0.1
        weighted = array(g) * array(weight)
        mean, scales = weighted.mean(-1, keepdims=True), array(scale)
        size = np.abs(weighted).mean(-1, keepdims=True)
    else:
        scale = torch.rand(shape[0], groups, dtype=dtype) + 0.1
        weighted = array(g) * array(weight)[:, None, None]
        members = weighted.reshape(shape[0], groups, -1)
        per = shape[1] // groups
        mean, scales, size = (
            np.repeat(each, per, 1)[:, :, None, None]
            for each in (members.mean(2), array(scale), np.abs(members).mean(2))
        )
    expected = (weighted - mean) * scales
    for native in (True, False):
        found = passes.centre(g, weight, scale, native=native)
        assert_close(found, expected, (np.abs(weighted) + size) * scales)


# --- rotary position ----------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [0, 8, 16, 24])
@pytest.mark.parametrize("shape", [(2, 5, 24), (1, 1, 24), (3, 35, 24)])
@pytest.mark.parametrize("in_place", [True, False])
def test_pairs_are_turned_by_the_angle_of_their_place(by, turned, shape, in_place, dtype):
    x, angles = torch.randn(shape, dtype=dtype), torch.randn(shape[1], 4, dtype=dtype)
    before, sines, cosines = array(x), angles.sin(), angles.cos()
    expected = before.copy()
    for image, place, first in itertools.product(*map(range, (*shape[:2], turned // 8))):
        row = slice(8 * first, 8 * first + 8)  # heads of eight numbers repeat the angles
        expected[image, place, row] = turn(
            before[image, place, row], array(sines)[place], array(cosines)[place]
        )
    found = passes.turn(x, sines, cosines, turned, in_place)
    assert_close(found, expected, np.hypot(before, 3.0))
    assert (found is x) == in_place
    if not in_place:
        assert (array(x) == before).all()


# --- statistics ---------------------------------------------------------------------------------


@MAP_LAYOUTS
@pytest.mark.parametrize("name", MAPS)
def test_statistics_are_mean_and_biased_variance(by, layout, name, dtype):
    x = made(layout, MAPS[name][0], dtype)
    mean, var = passes.statistics(x)
    numbers = array(x)
    assert_close(mean, numbers.mean((0, 2, 3)), np.abs(numbers).mean((0, 2, 3)))
    assert_close(var, numbers.var((0, 2, 3)), (numbers**2).mean((0, 2, 3)))


@MAP_LAYOUTS
@pytest.mark.parametrize("shape", [(3, 5, 40, 31), (2, 67, 9, 7), (1, 3, 1, 33)])
def test_a_large_mean_does_not_cancel_the_variance(by, layout, shape, dtype):
    x = made(layout, shape, dtype) + 1e4
    mean, var = passes.statistics(x)
    numbers = array(x)
    # PyTorch adds up more numbers in a row.
    assert_close(mean, numbers.mean((0, 2, 3)), np.full(shape[1], 1e4 if by == "C" else 1e5))
    # 1e4^2 has no digits left for a variance of 1 in float32: a difference of squares would be
    # wrong in all of them. PyTorch's mean is right to 1e-3, and so the variance about it.
    tolerance = 1e-3 if dtype == torch.float32 else 1e-11
    np.testing.assert_allclose(array(var), numbers.var((0, 2, 3)), rtol=tolerance, atol=0)


def test_the_variance_of_a_constant_is_zero(by, dtype):
    mean, var = passes.statistics(torch.full((2, 3, 8, 8), 0.5, dtype=dtype))
    assert (mean == 0.5).all()
    assert (var == 0).all()


# --- threads ------------------------------------------------------------------------------------


def every_pass(layout, dtype):
    """What all passes make of the same numbers, more than one tile or chunk of them."""
    torch.manual_seed(0)
    shape, groups, chans = (2, 70, 35, 31), 2, 70
    x, y, inverse = (made(layout, s, dtype) for s in (shape, shape, per_group(shape, groups)))
    a, b, k = torch.rand(3, chans, dtype=dtype) + 0.5
    window = (Window(3, stride=2, pad=1), Window(3, pad=1))
    out = [passes.squares(x, groups), passes.squares(x, gains=a)]
    out += [passes.inverse_norm(x, *window, g, EPS) for g in (1, groups, chans)]
    out.append(passes.box_back(passes.inverse_norm(x, *window, 2, EPS), *window, shape[2:]))
    u = x.clone()
    out += [passes.scale_(u, a, b, inverse.abs(), keep=True), u]
    out += passes.scale_back(y, x, a, inverse.abs())
    added = y.clone()
    passes.add_scaled_(added, x, inverse)
    out += [added, passes.affine(x, y, a, b, k), *passes.statistics(x), passes.products(x, y)]
    out.append(passes.centre(x, a, torch.rand(2, groups, dtype=dtype)))
    rows = x.flatten(2).transpose(1, 2)[..., :64].contiguous()
    angles = torch.randn(rows.shape[1], 8, dtype=dtype)
    return [*out, passes.turn(rows, angles.sin(), angles.cos(), 48)]


@MAP_LAYOUTS
def test_threads_share_the_work_and_change_no_number(layout, dtype):
    with kernels(True):
        alone = every_pass(layout, dtype)
        torch.set_num_threads(2)
        try:
            together = every_pass(layout, dtype)
        finally:
            torch.set_num_threads(1)
    for found, expected in zip(together, alone, strict=True):
        assert torch.equal(found, expected)


# --- tensors without a kernel -------------------------------------------------------------------


def test_other_dtypes_are_left_to_pytorch():
    x = torch.randn(2, 4, 5, 5, dtype=torch.bfloat16)
    expected = x.unflatten(1, (2, 2)).square().sum(2)
    assert torch.equal(passes.squares(x, 2), expected)
