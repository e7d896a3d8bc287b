"""The switch belongs to a thread, nests, and goes back to what it was."""

from threading import Thread

import pytest
import torch

from bcos_vit.errors import NotExplainableError
from bcos_vit.layers import constant, explanation_mode, held, is_explaining


def test_it_is_off_until_turned_on():
    assert not is_explaining()
    with explanation_mode():
        assert is_explaining()
    assert not is_explaining()


def test_leaving_an_inner_mode_leaves_the_outer_one_on():
    with explanation_mode():
        with explanation_mode():
            pass
        assert is_explaining()
    assert not is_explaining()


def test_an_exception_turns_it_off():
    with pytest.raises(RuntimeError), explanation_mode():
        raise RuntimeError
    assert not is_explaining()


def test_other_threads_do_not_see_it():
    seen = []
    with explanation_mode():
        thread = Thread(target=lambda: seen.append(is_explaining()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_held_cuts_the_graph_only_while_explaining():
    x = torch.ones(2, requires_grad=True)
    assert held(x) is x
    with explanation_mode():
        assert not held(x).requires_grad


def test_constants_are_plain_values_without_gates():
    value = torch.ones(1, 3)
    assert constant("bias", value) is value
    with explanation_mode():
        assert constant("bias", value) is value


def test_the_gradient_of_a_gate_is_what_its_constant_carries():
    gate = torch.ones(2, requires_grad=True)
    value = torch.tensor([[1.0, 10.0, 100.0]], requires_grad=True)
    with explanation_mode({"bias": gate}):
        y = constant("bias", value)
    assert y.shape == (2, 3)
    (y * torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])).sum().backward()
    assert gate.grad.tolist() == [1.0, 110.0]
    assert value.grad is None


def test_the_innermost_gates_count():
    outer, inner = torch.tensor([2.0]), torch.tensor([3.0])
    with explanation_mode({"bias": outer}):
        with explanation_mode({"bias": inner}):
            assert constant("bias", torch.ones(1, 1)).item() == 3
        assert constant("bias", torch.ones(1, 1)).item() == 2


def test_a_constant_that_nobody_declared_is_an_error():
    with (
        explanation_mode({"bias": torch.ones(1)}),
        pytest.raises(NotExplainableError, match="'class token'"),
    ):
        constant("class token", torch.ones(1, 1))
