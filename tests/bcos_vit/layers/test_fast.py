"""Fast paths of layers give the numbers of the plain formulas, however they are asked for them."""

import contextlib
import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks

from bcos_vit.layers import (
    BcosBatchNorm2d,
    BcosConv2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosLinear,
    BcosMlp,
    BcosPositionNorm2d,
    explanation_mode,
)
from bcos_vit.layers.fast import fast, plain_formulas
from tests.fast_paths import (
    assert_no_worse_than_plain,
    assert_same_in_float64,
    kernels,
)
from tests.layer_cases import (
    CONVENTIONAL,
    FOLD_SHAPE,
    FOLDS,
    GAPS,
    LAYERS,
    Case,
    Folded,
    Unfolded,
    fold,
    layouts,
    maybe,
)

SEEDS = range(4)


@pytest.fixture(params=["C", "PyTorch"], scope="module", autouse=True)
def by(request):
    """With kernels, and without."""
    with kernels(request.param == "C"):
        yield request.param


def each_alone(results):
    """Lists of what several seeds make of the same: outputs, gradients of inputs, and so on."""
    return list(zip(*results, strict=True))


def assert_fast_is_as_good_as_plain(cases, **how):
    truth = each_alone(case.run(torch.float64, plain=True, **how) for case in cases)
    double = each_alone(case.run(torch.float64, **how) for case in cases)
    plain = each_alone(case.run(plain=True, **how) for case in cases)
    found = each_alone(case.run(**how) for case in cases)
    for each in range(len(truth)):
        assert_same_in_float64(double[each], truth[each])
        assert_no_worse_than_plain(found[each], plain[each], truth[each])


def layers(*without):
    """All layers but those with certain words in their name."""
    names = [name for name in LAYERS if not any(word in name for word in without)]
    cases = list(layouts(names, lambda name: LAYERS[name][1]))
    return pytest.mark.parametrize(("name", "last"), cases)


EVERY_LAYER = layers()
EVERY_EXPLAINED_LAYER = layers("training")
# With nothing to attend to, or to take a variance of, PyTorch complains.
EVERY_LAYER_OF_IMAGES_ALONE = layers("training", "attention")
EVERY_FOLD = pytest.mark.parametrize(("name", "last"), list(layouts(FOLDS, lambda _: FOLD_SHAPE)))


# --- numbers ------------------------------------------------------------------------------------


@EVERY_LAYER
def test_outputs_and_gradients_are_as_good_as_the_plain_ones(name, last):
    assert_fast_is_as_good_as_plain([Case.of(*LAYERS[name], seed, last) for seed in SEEDS])


@EVERY_EXPLAINED_LAYER
def test_weights_of_explanations_are_as_good_as_the_plain_ones(name, last):
    cases = [Case.of(*LAYERS[name], seed, last) for seed in SEEDS]
    assert_fast_is_as_good_as_plain(cases, explaining=True)


@EVERY_FOLD
def test_norms_folded_while_explaining_are_as_good_as_the_plain_ones(name, last):
    cases = [Case.of(fold(name), FOLD_SHAPE, seed, last) for seed in SEEDS]
    assert_fast_is_as_good_as_plain(cases, explaining=True)


@EVERY_FOLD
def test_norms_folded_without_gradient_are_as_good_as_the_plain_ones(name, last):
    cases = [Case.of(fold(name), FOLD_SHAPE, seed, last) for seed in SEEDS]
    found = {}
    for key, dtype, plain in (
        ("fast", torch.float32, False), ("plain", torch.float32, True),
        ("double", torch.float64, False), ("truth", torch.float64, True),
    ):  # fmt: skip
        with maybe(plain, plain_formulas), torch.no_grad():
            found[key] = [copy.deepcopy(c.layer).to(dtype)(c.x.to(dtype)) for c in cases]
    assert_same_in_float64(found["double"], found["truth"])
    assert_no_worse_than_plain(found["fast"], found["plain"], found["truth"])


@EVERY_FOLD
def test_folded_norms_are_norms_and_convolutions_one_after_the_other(name, last):
    case = Case.of(fold(name), FOLD_SHAPE, last=last)
    alone = Unfolded(case.layer.conv, case.layer.norm, case.layer.before).eval()
    other = Case(alone, case.x, case.dy)
    for how in ({"explaining": True}, {}):
        assert_same_in_float64(case.run(torch.float64, **how), other.run(torch.float64, **how))


# As many places and channels as layers of real networks have, to show what long sums lose.
LARGE = {
    "linear": (lambda: BcosLinear(96, 64), (4, 196, 96)),
    "mlp": (lambda: BcosMlp(32, 128), (4, 196, 32)),
    "conv 1x1": (lambda: BcosConv2d(64, 32, 1), (4, 64, 28, 28)),
    "conv 3x3": (lambda: BcosConv2d(16, 16, 3, padding=1), (4, 16, 28, 28)),
    "conv 7x7, depthwise": (lambda: BcosConv2d(8, 8, 7, padding=3, groups=8), (4, 8, 56, 56)),
    "layer norm": (lambda: BcosLayerNorm(64), (8, 196, 64)),
    "position norm": (lambda: BcosPositionNorm2d(64), (8, 64, 14, 14)),
    "group norm": (lambda: BcosGroupNorm(16), (2, 16, 112, 112)),
    "batch norm, training": (lambda: BcosBatchNorm2d(8), (4, 8, 56, 56)),
}


@pytest.mark.parametrize(("name", "last"), list(layouts(LARGE, lambda name: LARGE[name][1])))
def test_long_sums_lose_no_more_than_those_of_the_plain_formula(name, last):
    assert_fast_is_as_good_as_plain([Case.of(*LARGE[name], seed, last) for seed in range(2)])


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("last", [False, True])
def test_weights_go_to_what_a_filter_that_steps_has_seen(kernel, last):
    """... whatever the stride leaves out at the end, and however wide the padding is."""
    pads = (0, kernel // 2, kernel + 1)
    for stride, padding, groups in itertools.product(range(1, kernel + 2), pads, (1, 2)):
        conv = (4, 6, kernel, stride, padding, 1, groups)
        shape = (2, 4, kernel + 5, kernel + 5 + groups)
        case = Case.of(lambda conv=conv: BcosConv2d(*conv), shape, last=last)
        for how in ({"explaining": True}, {"weights": False}):
            found, truth = (case.run(torch.float64, plain=p, **how) for p in (False, True))
            assert_same_in_float64(found, truth)


def test_layers_on_top_of_each_other_miss_no_row():
    """Without gradients they run on some 2000 rows at a time."""
    case = Case.of(lambda: BcosMlp(8, 1024), (3, 1500, 8))
    found = {}
    for plain, dtype in itertools.product((False, True), (torch.float32, torch.float64)):
        with maybe(plain, plain_formulas), torch.no_grad():
            found[plain, dtype] = [copy.deepcopy(case.layer).to(dtype)(case.x.to(dtype))]
    truth = found[True, torch.float64]
    assert_same_in_float64(found[False, torch.float64], truth)
    assert_no_worse_than_plain(found[False, torch.float32], found[True, torch.float32], truth)


@pytest.mark.parametrize("mean", [1, 10, 100])
@pytest.mark.parametrize("last", [False, True])
def test_the_gradient_of_batch_norm_survives_a_large_mean(mean, last):
    cases = [Case.of(*LAYERS["batch norm, training"], seed, last) for seed in SEEDS]
    for case in cases:
        case.x += mean
    assert_fast_is_as_good_as_plain(cases)


@pytest.mark.parametrize("last", [False, True])
def test_running_variances_are_those_of_the_plain_formula(last):
    case = Case.of(*LAYERS["batch norm, training"], last=last)
    one, other = (copy.deepcopy(case.layer).double() for _ in range(2))
    one(case.x.double())
    with plain_formulas():
        other(case.x.double())
    torch.testing.assert_close(one.running_var, other.running_var, rtol=1e-12, atol=0)
    assert one.num_batches_tracked == other.num_batches_tracked == 1


# --- numbers at the edge ------------------------------------------------------------------------


@EVERY_LAYER
@pytest.mark.parametrize("what", ["input", "weights", "half of the input", "half of the weights"])
def test_zeros_give_what_they_give_by_the_plain_formula(name, last, what):
    case = Case.of(*LAYERS[name], last=last)
    with torch.no_grad():
        if "input" in what:
            case.x[: len(case.x) // 2 if "half" in what else None] = 0
        else:
            for weight in case.layer.parameters():
                weight[: len(weight) // 2 if "half" in what else None] = 0
    found, expected = case.run(torch.float64), case.run(torch.float64, plain=True)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        # Up to rounding: weights of zero have gradients of any size by either formula.
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12 * max(1, other.abs().max()))


@EVERY_LAYER_OF_IMAGES_ALONE
def test_an_empty_batch_stays_empty_and_has_gradients_of_zero(name, last):
    case = Case.of(*LAYERS[name], last=last)
    x = case.x[:0].requires_grad_()
    y = case.layer(x)
    y.sum().backward()
    assert y.shape == (0, *case.dy.shape[1:])
    assert x.grad.shape == x.shape
    for parameter in case.layer.parameters():
        assert not parameter.grad.any()


@EVERY_LAYER
@pytest.mark.parametrize("gaps", GAPS)
def test_how_numbers_lie_in_memory_changes_nothing(name, last, gaps):
    case = Case.of(*LAYERS[name], last=last)
    spread = GAPS[gaps](case.x.double()).detach()
    layer = case.layer.double()
    for explaining in (False, True):
        if explaining and "training" in name:
            continue
        results = []
        for x in (spread.requires_grad_(), spread.detach().clone().requires_grad_()):
            with maybe(explaining, explanation_mode):
                y = copy.deepcopy(layer)(x)
                results.append([y, *torch.autograd.grad(y, x, GAPS[gaps](case.dy.double()))])
        assert_same_in_float64(*results)


def test_one_token_has_no_need_of_a_batch():
    layer, x = BcosLinear(7, 5).double(), torch.randn(7, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (5,)
    assert torch.equal(y, layer(x[None])[0])
    y.sum().backward()
    assert x.grad.shape == (7,)


# --- what is asked for --------------------------------------------------------------------------


@EVERY_LAYER
def test_gradients_are_of_what_requires_them(name, last):
    case = Case.of(*LAYERS[name], last=last)
    both = case.run()
    only = case.run(weights=False)
    assert torch.equal(only[0], both[0])
    # PyTorch's convolutions may take another way when less is asked of them.
    torch.testing.assert_close(only[1], both[1], rtol=1e-4, atol=1e-5)
    y = case.layer(case.x)
    y.backward(case.dy)
    for parameter, expected in zip(case.layer.parameters(), both[2:], strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4)
    assert not copy.deepcopy(case.layer).requires_grad_(False)(case.x).requires_grad


@EVERY_LAYER
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_numbers_are_the_same(name, last, mode):
    case = Case.of(*LAYERS[name], last=last)
    expected = copy.deepcopy(case.layer)(case.x).detach()
    with mode():
        found = copy.deepcopy(case.layer)(case.x)
    # Attention without gradients takes another way through PyTorch.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@EVERY_LAYER
def test_a_graph_that_is_kept_gives_the_same_twice(name, last):
    case = Case.of(*LAYERS[name], last=last)
    x = case.x.requires_grad_()
    wanted = (x, *case.layer.parameters())
    y = case.layer(x)
    first = torch.autograd.grad(y, wanted, case.dy, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(y, wanted, case.dy), strict=True):
        assert torch.equal(one, other)


# --- derivatives of derivatives -----------------------------------------------------------------

SMALL = {
    "linear": (lambda: BcosLinear(4, 3), (3, 4)),
    "linear, weights of any length": (lambda: BcosLinear(4, 3, **CONVENTIONAL), (3, 4)),
    "conv 1x1": (lambda: BcosConv2d(3, 2, 1), (2, 3, 2, 2)),
    "conv 3x3, in groups": (lambda: BcosConv2d(4, 2, 3, 2, 1, groups=2), (1, 4, 3, 3)),
    "layer norm": (lambda: BcosLayerNorm(4), (3, 4)),
    "group norm": (lambda: BcosGroupNorm(4, 2), (1, 4, 2, 2)),
    "batch norm, training": (lambda: BcosBatchNorm2d(2), (2, 2, 2, 2)),
}


@pytest.mark.parametrize(("name", "last"), list(layouts(SMALL, lambda name: SMALL[name][1])))
def test_second_derivatives_are_those_of_the_gradients(name, last):
    case = Case.of(*SMALL[name], last=last)
    layer = case.layer.double()
    (weight, *_) = layer.parameters()

    def function(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    inputs = (case.x.double().requires_grad_(), weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@EVERY_LAYER
def test_gradients_to_be_differentiated_are_the_gradients(name, last):
    case = Case.of(*LAYERS[name], last=last)
    layer, x, dy = case.layer.double(), case.x.double().requires_grad_(), case.dy.double()
    wanted = (x, *layer.parameters())
    y = layer(x)
    again = torch.autograd.grad(y, wanted, dy, create_graph=True)
    assert all(each.requires_grad for each in again[:1])
    assert_same_in_float64(again, torch.autograd.grad(y, wanted, dy))


def penalty(layer, x):
    """Gradients of the length of a gradient, as in WGAN-GP."""
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(dx.square().sum(), (x, *layer.parameters()), allow_unused=True)


@pytest.mark.parametrize("name", ["linear", "mlp", "conv 3x3", "conv 7x7, depthwise"])
def test_penalties_on_gradients_are_those_of_the_plain_formula(name):
    case = Case.of(*LAYERS[name])
    layer, x = case.layer.double(), case.x.double().requires_grad_()
    found = penalty(layer, x)
    with plain_formulas():
        expected = penalty(layer, x)
    assert_same_in_float64(found, expected)


@pytest.mark.parametrize("name", ["linear", "conv 3x3", "batch norm, training"])
def test_second_derivatives_do_not_depend_on_where_they_are_taken(name):
    case = Case.of(*LAYERS[name])
    layer, x = case.layer.double(), case.x.double().requires_grad_()
    expected = penalty(layer, x)
    loss = layer(x).square().sum()
    with explanation_mode():
        (dx,) = torch.autograd.grad(loss, x, create_graph=True)
    found = torch.autograd.grad(dx.square().sum(), (x, *layer.parameters()))
    assert_same_in_float64(found, expected)


# --- function transforms ------------------------------------------------------------------------

TRANSFORMED = [
    "linear",
    "conv 1x1",
    "conv 3x3, in groups",
    "layer norm",
    "group norm",
    "batch norm",
]


@pytest.mark.parametrize("name", [*TRANSFORMED, "batch norm, training"])
def test_gradients_by_function_are_those_by_backward(name):
    case = Case.of(*LAYERS[name])
    layer, x = case.layer.double(), case.x.double()
    frozen = dict(layer.named_buffers())  # running statistics may not change in a function

    def loss(parameters, x):
        y = torch.func.functional_call(layer, (parameters, copy.deepcopy(frozen)), (x,))
        return (y * case.dy).sum()

    weights, dx = torch.func.grad(loss, argnums=(0, 1))(dict(layer.named_parameters()), x)
    assert_same_in_float64([dx, *weights.values()], case.run(torch.float64)[1:])


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_layer_is_mapped_over_a_further_dimension(name):
    case = Case.of(*LAYERS[name])
    layer = case.layer.double()
    x = torch.randn(3, *case.x.shape, dtype=torch.float64)
    assert_same_in_float64(torch.func.vmap(layer)(x), [layer(each) for each in x])


# PyTorch scripts some of its own formulas for forward derivatives.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", TRANSFORMED)
def test_forward_derivatives_are_those_of_the_plain_formula(name):
    case = Case.of(*LAYERS[name])
    layer, x = case.layer.double(), case.x.double()
    tangent = torch.randn_like(x)
    y, found = torch.func.jvp(layer, (x,), (tangent,))
    assert_same_in_float64([y], [layer(x)])
    with forward_ad.dual_level():
        other = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent
    # Along a direction d, the derivative of <dy, y> is <dx, d>.
    dx = case.run(torch.float64)[1]
    for each in (found, other):
        one, two = (case.dy * each).sum(), (dx * tangent).sum()
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


# --- where fast paths apply ---------------------------------------------------------------------


class Marked(torch.Tensor):
    """A tensor that may do anything with what is done to it."""


def test_fast_paths_are_for_plain_tensors_in_full_precision():
    x = torch.randn(2, 3)
    assert fast(x)
    assert fast(x.double(), nn.Parameter(x.double()))
    for other in (x.half(), x.bfloat16(), x.to("meta"), x[:0], x.as_subclass(Marked)):
        assert not fast(other)
    assert not fast(x, x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not fast(x)
    with forward_ad.dual_level():
        assert not fast(x)
    assert torch.func.vmap(lambda each: each + fast(each))(torch.zeros(2)).tolist() == [0, 0]


def test_the_switch_turns_fast_paths_off_and_what_was_found_on_again():
    x = torch.randn(2, 3)
    with plain_formulas():
        with plain_formulas():
            assert not fast(x)
        assert not fast(x)
    assert fast(x)
    with pytest.raises(KeyError), plain_formulas():
        raise KeyError
    assert fast(x)


@EVERY_LAYER
def test_autocast_keeps_to_the_plain_formulas(name, last):
    case = Case.of(*LAYERS[name], last=last)
    results = []
    for plain in (False, True):
        layer = copy.deepcopy(case.layer)
        with torch.autocast("cpu", torch.bfloat16), maybe(plain, plain_formulas):
            y = layer(case.x)
        y.backward(case.dy.to(y.dtype))
        results.append([y, *(each.grad for each in layer.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


# --- hooks --------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched(module, how, seen):
    """A hook of one kind on a module or on all, that notes what it is shown."""

    def before(module, inputs):
        seen.append(inputs[0].detach())

    def after(module, inputs, output):
        seen.append(output.detach())

    def grads(module, *grads):
        seen.append(grads[-1][0].detach())

    everywhere = nn.modules.module
    handle = {
        "forward": lambda: module.register_forward_hook(after),
        "forward_pre": lambda: module.register_forward_pre_hook(before),
        "backward": lambda: module.register_full_backward_hook(grads),
        "backward_pre": lambda: module.register_full_backward_pre_hook(grads),
        "forward, on all": lambda: everywhere.register_module_forward_hook(after),
        "forward_pre, on all": lambda: everywhere.register_module_forward_pre_hook(before),
        "backward, on all": lambda: everywhere.register_module_full_backward_hook(grads),
        "backward_pre, on all": lambda: everywhere.register_module_full_backward_pre_hook(grads),
    }[how]()
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("place", ["conv", "norm", "before"])
@pytest.mark.parametrize(
    "how", [kind + where for kind in ("forward", "forward_pre", "backward", "backward_pre")
            for where in ("", ", on all")]
)  # fmt: skip
def test_hooks_see_convolutions_and_norms_as_they_are(place, how):
    case = Case.of(fold("norms on both sides"), FOLD_SHAPE)
    parts = (case.layer.conv, case.layer.norm, case.layer.before)
    records = []
    for kind in (Folded, Unfolded):
        layer, seen = kind(*parts).double().eval(), []
        x = case.x.double().requires_grad_()
        with watched(getattr(layer, place), how, seen), explanation_mode():
            layer(x).backward(case.dy.double())
        records.append([*seen, x.grad])
    folded, unfolded = records
    assert len(folded) == len(unfolded) > 1
    for one, other in zip(folded, unfolded, strict=True):
        # What nobody looks at is folded still.
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("place", ["fc1", "act", "fc2", "drop"])
def test_hooks_see_all_rows_of_a_layer_and_what_is_in_between(place):
    layer, x, seen = BcosMlp(8, 1024).eval(), torch.randn(3000, 8), []
    with watched(getattr(layer, place), "forward", seen), torch.no_grad():
        y = layer(x)
    with torch.no_grad():
        hidden = layer.fc1(x)
        expected = {"fc1": [hidden], "act": [hidden], "fc2": [y], "drop": [hidden, y]}[place]
    for one, other in zip(seen, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_hook_may_replace_what_a_norm_returns():
    layer = fold("norm")().double()
    layer.norm.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    with torch.no_grad():
        assert not layer(torch.randn(FOLD_SHAPE, dtype=torch.float64)).any()


# --- memory -------------------------------------------------------------------------------------


def held_bytes(layer, x):
    """Bytes held for the backward pass, beside input, output, parameters and buffers."""
    found: dict[int, Any] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    for each in (x, y, *layer.parameters(), *layer.buffers()):
        found.pop(each.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in found.values())


HOLDING = [name for name in LAYERS if name.startswith(("linear", "conv"))]


@pytest.mark.parametrize("name", [name for name in HOLDING if name != "conv 3x3, reflected"])
@pytest.mark.parametrize("last", [False, True])
def test_beside_input_and_output_only_norms_are_held(name, last):
    case = Case.of(*LAYERS[name], last=last and len(LAYERS[name][1]) == 4)
    groups = getattr(case.layer, "groups", 1)
    outputs = len(case.layer.weight)
    norms = case.dy.numel() // outputs * groups  # of patches
    assert case.layer.bias is None or "any length" in name
    y = case.dy.nbytes if case.layer.bias is not None else 0  # before the bias is added
    found = held_bytes(case.layer, case.x.requires_grad_())
    assert found <= 4 * (norms + outputs) + y


@pytest.mark.parametrize("name", [name for name in HOLDING if "reflected" not in name])
def test_while_explaining_the_scale_is_held_and_no_input(name):
    case = Case.of(*LAYERS[name])
    with explanation_mode():
        assert held_bytes(case.layer, case.x.requires_grad_()) == case.dy.nbytes


@pytest.mark.parametrize("last", [False, True])
def test_batch_norm_holds_its_input_and_numbers_per_channel(last):
    case = Case.of(*LAYERS["batch norm, training"], last=last)
    assert held_bytes(case.layer, case.x.requires_grad_()) <= 4 * 4 * case.x.shape[1]


@pytest.mark.parametrize("name", ["layer norm", "position norm", "group norm"])
def test_norms_hold_numbers_per_token(name):
    case = Case.of(*LAYERS[name])
    assert held_bytes(case.layer, case.x.requires_grad_()) < 0.1 * case.x.nbytes


def test_without_a_backward_pass_nothing_is_held():
    for name in LAYERS:
        case = Case.of(*LAYERS[name])
        with torch.no_grad():
            assert held_bytes(case.layer, case.x) == 0
