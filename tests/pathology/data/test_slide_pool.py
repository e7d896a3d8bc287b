"""Few slides are open at a time, and none is shared between processes."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest

from pathology.data.slide_pool import SlidePool
from pathology.slides import MemorySlide


class Opener:
    """Notes which slides were opened, and where."""

    def __init__(self):
        self.opened = []

    def __call__(self, number):
        self.opened.append((os.getpid(), number))
        return MemorySlide(np.full((2, 2, 3), number, np.uint8), mpp=0.5, slide_id=str(number))


def test_a_slide_is_opened_once_while_it_is_kept():
    opener = Opener()
    pool = SlidePool(opener, capacity=2)
    assert pool[3] is pool[3]
    assert [number for _, number in opener.opened] == [3]


def test_the_slide_not_used_longest_goes():
    opener = Opener()
    pool = SlidePool(opener, capacity=2)
    for number in (0, 1, 0, 2, 0, 1):
        assert pool[number].slide_id == str(number)
        assert len(pool) <= 2
    assert [number for _, number in opener.opened] == [0, 1, 2, 1]


def test_a_slide_in_use_is_not_closed():
    pool = SlidePool(Opener(), capacity=1)
    slide = pool[0]
    _ = pool[1]
    assert slide.thumbnail(1).tolist() == [[[0, 0, 0]]]


def test_a_pool_travels_empty():
    pool = SlidePool(Opener(), capacity=2)
    _ = pool[0]
    copy = pickle.loads(pickle.dumps(pool))
    assert len(copy) == 0
    assert copy[1].slide_id == "1"


def test_a_forked_child_opens_its_own():
    opener = Opener()
    pool = SlidePool(opener, capacity=2)
    _ = pool[0]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    # Held at the moment of the fork, as by another thread that reads just then.
    with pool._lock:
        child = context.Process(
            target=lambda: answers.put((len(pool), pool[0].slide_id, opener.opened[-1][0]))
        )
        child.start()
        found = answers.get(timeout=20)
    child.join()
    assert found == (0, "0", child.pid)


def test_a_pool_without_room_is_refused():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        SlidePool(Opener(), capacity=0)
