"""Where colours saturate: one number for all."""

import math

import pytest

from pathology.viewer import limits
from pathology.viewer.evidence import colour_limits
from pathology.viewer.limits import SharedLimits, round_up


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(1.0, 1.0), (1.01, 2.0), (2.0, 2.0), (3, 5.0), (7, 10.0), (133.7, 200.0), (0.0049, 0.005),
     (0.005, 0.005), (0.0051, 0.01), (99999, 100000.0), (0, 1.0), (-3, 1.0), (math.nan, 1.0),
     (math.inf, 1.0)],
)  # fmt: skip
def test_rounded_up(value, wanted):
    assert round_up(value) == wanted


def test_none_is_below_and_none_is_far_above(rng):
    for value in 10 ** rng.uniform(-12, 12, 500):
        assert value <= round_up(value) <= 2.5 * value


def test_the_largest_of_all(library):
    own = [colour_limits(entry.explanation) for entry in library.evidence]
    shared = SharedLimits(library.evidence).get()
    names = {name for each in own for name in each}
    assert set(shared) == names
    assert {"heatmap", "density"} <= names
    for name in names:
        assert shared[name] == round_up(max(each.get(name, 0.0) for each in own))


def test_of_very_many_some_are_asked(library, monkeypatch):
    asked = []
    monkeypatch.setattr(limits, "MOST_READ", 10)
    monkeypatch.setattr(limits, "colour_limits", lambda each: asked.append(each) or {"heatmap": 3})
    shared = SharedLimits([library.evidence[0]] * 95)
    assert shared.get() == {"heatmap": 5.0}
    assert shared.get() == {"heatmap": 5.0}
    assert 5 <= len(asked) <= 10
