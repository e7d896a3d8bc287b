"""Data sets made small, and the numbers that go with them."""

from functools import partial

import pytest

from pathology.data.open_data.sets import recognise
from tests.pathology.data.open_data.trees import TREES, take_small


@pytest.fixture
def small(monkeypatch):
    return partial(take_small, monkeypatch)


@pytest.fixture
def make(small, tmp_path):
    """Makes the small copy of a set, to be damaged; its numbers are taken for the published."""

    def build(name):
        small(name)
        maker, folder = TREES[name]
        return maker(tmp_path / folder)

    return build


@pytest.fixture
def read():
    """Reads a folder as the set that it is recognised as."""
    return lambda folder, name="": recognise(folder, name)[0].read(folder)


@pytest.fixture
def said():
    """All that is wrong with what was found, as one text."""
    return lambda found: "\n".join(
        f"{problem.what}: {', '.join(problem.files)}" for problem in found.problems
    )
