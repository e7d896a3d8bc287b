"""The switch belongs to a thread, nests, and goes back to what it was."""

from threading import Thread

import pytest
import torch

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


def test_constants_are_plain_values_outside():
    value = torch.ones(1, 3)
    assert constant("bias", value, 4) is value


def test_constants_are_gathered_by_the_innermost_mode():
    value = torch.ones(1, 3)
    with explanation_mode() as outer:
        constant("first", value, 2)
        with explanation_mode() as inner:
            constant("second", value, 2)
        constant("third", value, 2)
    assert [name for name, _ in outer.leaves] == ["first", "third"]
    assert [name for name, _ in inner.leaves] == ["second"]


def test_a_recorded_constant_shares_no_memory_with_its_value():
    value = torch.ones(1, 3)
    with explanation_mode():
        leaf = constant("bias", value, 1)
    value.zero_()
    assert (leaf == 1).all()
