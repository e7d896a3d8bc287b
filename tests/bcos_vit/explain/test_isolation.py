"""Explaining leaves images and model as they were, under exceptions too."""

import copy

import pytest
import torch

from bcos_vit.explain import explain
from bcos_vit.layers import explanation_mode, is_explaining


class Failure(RuntimeError):
    """Raised by a layer of the model."""


def state_of(model):
    return {
        "values": copy.deepcopy(model.state_dict()),
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
    }


def assert_equal_state(one, other):
    for name, value in one["values"].items():
        assert torch.equal(value, other["values"][name]), name
    for a, b in zip(one["grads"], other["grads"], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    for key in ("requires_grad", "training", "attributes", "hooks"):
        assert one[key] == other[key]


@pytest.fixture(params=["vit", "resnet"])
def model(request, make_vit, make_resnet):
    """Half-frozen, with gradients waiting in it, and one part left in training mode."""
    made = make_vit() if request.param == "vit" else make_resnet()
    made(torch.rand(1, 6, 8, 8, dtype=torch.float64)).sum().backward()
    next(iter(made.parameters())).requires_grad_(False)
    made.logits.train()
    return made


@pytest.fixture
def images():
    return torch.rand(2, 6, 8, 8, dtype=torch.float64)


def test_the_model_is_left_as_it_was(model, images):
    before = state_of(model)
    explain(model, images)
    assert_equal_state(before, state_of(model))


@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_images_are_left_as_they_were(model, images, requires_grad):
    before = images.clone()
    images.requires_grad_(requires_grad)
    explain(model, images)
    assert torch.equal(images, before)
    assert images.requires_grad == requires_grad
    assert images.grad is None


def test_a_gradient_waiting_on_the_images_is_left_alone(model, images):
    images.requires_grad_().sum().backward()
    explain(model, images)
    assert (images.grad == 1).all()


@pytest.mark.parametrize("part", [0, -1])
def test_everything_is_left_as_it_was_when_a_layer_fails(model, images, part):
    before, pixels = state_of(model), images.clone()

    def fail(module, inputs):
        raise Failure

    hook = list(model.children())[part].register_forward_pre_hook(fail)
    with pytest.raises(Failure):
        explain(model, images)
    hook.remove()
    assert not is_explaining()
    assert torch.is_grad_enabled()
    assert_equal_state(before, state_of(model))
    assert torch.equal(images, pixels)
    assert not images.requires_grad


def test_a_wrong_target_leaves_everything_as_it_was(model, images):
    before = state_of(model)
    with pytest.raises(ValueError, match="target"):
        explain(model, images, 99)
    assert not is_explaining()
    assert_equal_state(before, state_of(model))


def test_plain_gradients_are_the_same_before_and_after(model, images):
    def gradient():
        x = images.clone().requires_grad_()
        return torch.autograd.grad(model(x).sum(), x)[0]

    before = gradient()
    explain(model, images)
    assert torch.equal(gradient(), before)


def test_an_explanation_inside_explanation_mode_keeps_the_outer_one(model, images):
    alone = explain(model, images)
    gates = {"bias": torch.ones(7, dtype=torch.float64, requires_grad=True)}
    with explanation_mode(gates):
        inside = explain(model, images)
        assert is_explaining()
    assert gates["bias"].grad is None
    assert torch.equal(inside.weights, alone.weights)
    assert torch.equal(inside.bias, alone.bias)


def test_explaining_twice_gives_the_same(model, images):
    assert torch.equal(explain(model, images).weights, explain(model, images).weights)
