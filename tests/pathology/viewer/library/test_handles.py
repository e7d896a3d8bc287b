"""Open things by key: one opens, the others wait; the few used last stay."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from pathology.viewer.library.handles import Handles

WAIT_S = 20


class Thing:
    """Something that can be referred to weakly."""


def test_one_opens_and_the_others_wait():
    handles, opened = Handles(), []
    all_ask = threading.Barrier(8)

    def opener():
        opened.append(Thing())
        started.set()
        assert let.wait(WAIT_S)
        return opened[-1]

    def ask(_):
        all_ask.wait(WAIT_S)
        return handles.get("a", opener)

    started, let = threading.Event(), threading.Event()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, i) for i in range(8)]
        assert started.wait(WAIT_S)
        assert handles.peek("a") is None  # without waiting
        let.set()
        found = {id(each.result(WAIT_S)) for each in asked}
    assert len(opened) == 1
    assert found == {id(opened[0])}
    assert handles.peek("a") is opened[0]


def test_another_key_does_not_wait():
    handles = Handles()
    started, let = threading.Event(), threading.Event()

    def slow():
        started.set()
        assert let.wait(WAIT_S)
        return "slow"

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(handles.get, "a", slow)
        assert started.wait(WAIT_S)
        assert handles.get("b", lambda: "quick") == "quick"
        let.set()
        assert asked.result(WAIT_S) == "slow"


def test_what_failed_is_tried_again():
    handles = Handles()

    def fails():
        raise OSError("not now")

    with pytest.raises(OSError, match="not now"):
        handles.get("a", fails)
    assert len(handles) == 0
    assert handles.peek("a") is None
    assert handles.get("a", lambda: 3) == 3


def test_the_least_used_is_let_go_and_freed():
    handles = Handles(2)
    first = weakref.ref(handles.get("a", Thing))
    second = weakref.ref(handles.get("b", Thing))
    handles.get("a", Thing)  # used again
    handles.get("c", Thing)
    gc.collect()
    assert len(handles) == 2
    assert first() is not None
    assert second() is None
    handles.clear()
    gc.collect()
    assert len(handles) == 0
    assert first() is None


def test_none_at_all_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Handles(0)
