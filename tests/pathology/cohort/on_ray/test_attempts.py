"""Slides that wait, are tried, die, and are late."""

import pytest

from pathology.cohort.on_ray.attempts import Attempts, Straggling

RULE = Straggling(times=3, floor_s=60, least=3)


def attempts(count, retries=1):
    return Attempts(count, retries, RULE)


def done(slides, *seconds):
    """As many slides have ended, after so long."""
    for long in seconds:
        index = slides.waiting.popleft()
        slides.begin(index, "w", 0)
        slides.leave(index, "w")
        slides.end(index, long)


def test_a_slide_whose_worker_died_waits_behind_the_others_and_is_given_up_in_the_end():
    slides = attempts(3)
    index = slides.waiting.popleft()
    assert slides.begin(index, "w1", now=10) == 1
    assert slides.seconds(index, "w1", now=12.5) == 2.5
    assert slides.died(index, "w1")
    assert [*slides.waiting] == [1, 2, 0]
    slides.waiting.remove(0)
    assert slides.begin(0, "w2", now=20) == 2
    assert not slides.died(0, "w2")
    assert [*slides.waiting] == [1, 2]
    assert slides.left == 3  # it has yet to be told
    slides.end(0, None)
    assert slides.left == 2


def test_without_retries_the_first_death_is_the_last():
    slides = attempts(1, retries=0)
    slides.begin(slides.waiting.popleft(), "w", now=0)
    assert not slides.died(0, "w")


def test_one_that_takes_far_longer_than_usual_is_late():
    slides = attempts(5)
    done(slides, 30, 40, 50)
    for _ in range(2):
        slides.begin(slides.waiting.popleft(), f"w{len(slides.waiting)}", now=100)
    assert slides.straggler(now=219) is None
    assert slides.straggler(now=221) == 3  # three times the median of 40
    slides.begin(3, "w3", now=221)
    assert slides.straggler(now=222) == 4
    slides.begin(4, "w4", now=222)
    assert slides.straggler(now=10_000) is None  # never a third one
    # The first that ends counts, and the other is told.
    slides.leave(3, "w3")
    assert slides.end(3, 40) == ["w1"]


def test_nobody_is_late_while_slides_wait_or_little_is_known():
    slides = attempts(5)
    done(slides, 1, 2)
    slides.begin(slides.waiting.popleft(), "w", now=0)
    slides.waiting.clear()
    assert slides.straggler(now=1e6) is None  # of two nobody knows what is usual
    slides = attempts(6)
    done(slides, 2, 3, 4)
    slides.begin(slides.waiting.popleft(), "w", now=0)
    assert slides.straggler(now=1e6) is None  # two wait
    slides.waiting.clear()
    assert slides.straggler(now=59) is None  # the floor
    assert slides.straggler(now=61) == 3


def test_slides_that_were_there_already_or_failed_do_not_make_others_late():
    slides = attempts(9)
    done(slides, 100, 100, 100, 0.01, 0.01, 0.01, 0.01, None)
    slides.begin(slides.waiting.popleft(), "w", now=0)
    assert slides.straggler(now=299) is None
    assert slides.straggler(now=301) == 8


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_death_beside_another_try_leaves_the_slide_to_that(first):
    slides = attempts(1)
    index = slides.waiting.popleft()
    slides.begin(index, "old", now=0)
    slides.begin(index, "new", now=1)
    assert slides.died(index, first)
    assert not slides.waiting
    other = {"old": "new", "new": "old"}[first]
    assert not slides.died(index, other)  # two deaths, one retry
    assert slides.begun(index) == 2
