"""What is counted reaches whoever listens, in sums."""

from contextlib import suppress

import pytest

from pathology.cohort import counting
from pathology.cohort.counting import count, gathering, listening


@pytest.fixture
def told():
    return []


def test_who_listens_inside_hears_instead_of_who_listens_outside(told):
    other = []
    with listening(lambda *more: told.append(more)):
        count(1, 0.5)
        with listening(lambda *more: other.append(more)):
            count(2)
        count(3)
    count(4)
    assert told == [(1, 0.5), (3, 0.0)]
    assert other == [(2, 0.0)]


def test_sums_are_told_once_in_a_while_and_the_rest_at_the_end(told, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])
    with gathering(lambda *more: told.append(more), every_s=1.0):
        for _ in range(25):
            now[0] += 0.1015
            count(2, 0.01)
        assert told == [(20, pytest.approx(0.1)), (20, pytest.approx(0.1))]
    assert told[2:] == [(10, pytest.approx(0.05))]


def test_a_block_that_fails_tells_the_rest_too(told):
    with suppress(KeyError), gathering(lambda *more: told.append(more)):
        count(2)
        raise KeyError
    assert told == [(2, 0.0)]


def test_nothing_is_told_of_a_block_that_counts_nothing(told):
    with gathering(lambda *more: told.append(more)):
        pass
    assert told == []
