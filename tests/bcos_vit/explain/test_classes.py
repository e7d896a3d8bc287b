"""explain_classes() is explain() class by class, from one forward pass and in bounded memory."""

import gc

import pytest
import torch
from torch import nn

from bcos_vit.explain import explain, explain_classes
from bcos_vit.layers import is_explaining
from tests.bcos_vit.explain.test_explain import assert_same
from tests.bcos_vit.explain.test_isolation import assert_equal_state, state_of

DEPTHS = ["pixels", "layer3", "head"]


@pytest.fixture
def pictures():
    return torch.rand(2, 6, 16, 16, dtype=torch.float64)


@pytest.fixture(params=["vit", "resnet"])
def model(request, make_vit, make_resnet):
    return make_vit(pos_embed="sincos") if request.param == "vit" else make_resnet()


@pytest.mark.parametrize("place", [0, 2, -1])
def test_it_is_explain_class_by_class(model, pictures, place):
    depth = model.depths()[place]
    found = list(explain_classes(model, pictures, depth=depth))
    assert [each.target.tolist() for each in found] == [[0, 0], [1, 1], [2, 2]]
    for k, each in enumerate(found):
        assert each.depth == depth
        assert_same(each, explain(model, pictures, k, depth=depth), atol=0)


@pytest.mark.parametrize("targets", [[2, 0, 2], (2, 0, 2), torch.tensor([2, 0, 2])])
def test_classes_come_in_the_order_asked_for(model, pictures, targets):
    found = [each.target.tolist() for each in explain_classes(model, pictures, targets)]
    assert found == [[2, 2], [0, 0], [2, 2]]


def test_no_class_is_no_explanation(model, pictures):
    assert list(explain_classes(model, pictures, [])) == []


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_single_image_has_no_batch_dimension(make_resnet, pictures, depth):
    model = make_resnet()
    for k, each in enumerate(explain_classes(model, pictures[0], depth=depth)):
        assert each.target.shape == ()
        assert_same(each, explain(model, pictures[0], k, depth=depth), atol=0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_there_is_one_forward_pass(make_resnet, pictures, depth):
    model, calls = make_resnet(), []
    model.logits.register_forward_pre_hook(lambda *_: calls.append(1))
    assert len(list(explain_classes(model, pictures, depth=depth))) == 3
    assert calls == [1]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([0, 3], ValueError, r"targets must be in \[0, 3\), got 3"),
        ([-1], ValueError, r"targets must be in \[0, 3\), got -1"),
        ([0.0, 1.0], TypeError, r"targets must be class indices, got torch\.float"),
        ([True, False], TypeError, r"targets must be class indices, got torch\.bool"),
        ([[0, 1]], ValueError, r"targets must be a sequence of indices, got shape \(1, 2\)"),
        (torch.tensor(1), ValueError, r"targets must be a sequence of indices, got shape \(\)"),
    ],
)
def test_classes_that_are_none_are_refused_at_once(model, pictures, targets, error, message):
    with pytest.raises(error, match=message):
        explain_classes(model, pictures, targets)


# --- memory -------------------------------------------------------------------------------------


def live_bytes():
    """What all tensors of this process hold."""
    gc.collect()
    # Not subclasses: a compiler leaves tensors behind that only have a shape.
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, nn.Parameter)]
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


@pytest.mark.parametrize("depth", DEPTHS)
def test_memory_does_not_grow_with_the_number_of_classes(make_resnet, pictures, depth):
    live = []
    for _ in explain_classes(make_resnet(), pictures, depth=depth):
        live.append(live_bytes())
    assert len(live) == 3
    assert max(live) == live[0]


class Kept:
    """Counts what graphs hold for their backward passes."""

    alive = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Kept.alive += 1

    def __del__(self):
        Kept.alive -= 1


@pytest.fixture
def kept():
    Kept.alive = 0
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda each: each.tensor):
        yield Kept


@pytest.mark.parametrize("depth", ["pixels", "layer3"])
def test_the_graph_is_freed_with_the_last_class(make_resnet, pictures, kept, depth):
    steps = explain_classes(make_resnet(), pictures, depth=depth)
    held = kept.alive
    assert held > 0
    for left in (held, held, 0):
        next(steps)
        assert kept.alive == left
    assert next(steps, None) is None


@pytest.mark.parametrize("taken", [0, 1])
def test_the_graph_is_freed_when_given_up(make_resnet, pictures, kept, taken):
    model = make_resnet()
    before = state_of(model)
    steps = explain_classes(model, pictures)
    for _ in range(taken):
        next(steps)
    steps.close()
    del steps
    assert kept.alive == 0
    assert_equal_state(before, state_of(model))


def test_fewer_tensors_are_held_for_a_deeper_cut(make_resnet, pictures, kept):
    model, held = make_resnet(), []
    for depth in model.depths():
        steps = explain_classes(model, pictures, depth=depth)
        held.append(kept.alive)
        steps.close()
    assert held == sorted(held, reverse=True)
    assert len(set(held)) > 4


# --- between two classes ------------------------------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_caller_is_not_in_explanation_mode(make_resnet, pictures, depth):
    model = make_resnet()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in explain_classes(model, pictures, depth=depth):
            assert not is_explaining()
            assert not torch.is_grad_enabled()
            assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_each_step_may_be_taken_in_another_gradient_mode(make_resnet, pictures, depth, context):
    model = make_resnet()
    steps = explain_classes(model, pictures, depth=depth)
    for k in range(3):
        with context():
            found = next(steps)
        assert not found.target.is_inference()
        assert not found.weights.is_inference()
        assert_same(found, explain(model, pictures, k, depth=depth), atol=0)


def test_two_of_them_may_be_looked_through_together(make_resnet, pictures):
    model = make_resnet()
    pairs = zip(
        explain_classes(model, pictures, depth="layer3"),
        explain_classes(model, pictures, depth="layer2"),
        strict=True,
    )
    for k, (one, other) in enumerate(pairs):
        assert_same(one, explain(model, pictures, k, depth="layer3"), atol=0)
        assert_same(other, explain(model, pictures, k, depth="layer2"), atol=0)


def test_the_model_may_learn_in_between(make_resnet, pictures):
    model = make_resnet()
    expected = [explain(model, pictures, k) for k in range(3)]
    steps = explain_classes(model, pictures)
    next(steps)
    model(pictures).sum().backward()
    assert_same(next(steps), expected[1], atol=0)
