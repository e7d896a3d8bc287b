"""Where colours saturate: one number for all."""

import math

import pytest

from pathology.viewer.evidence import limits
from pathology.viewer.evidence.limits import SharedLimits, colour_limits, round_down


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(1.0, 1.0), (1.99, 1.0), (2.0, 2.0), (3, 2.0), (7, 5.0), (133.7, 100.0), (0.0049, 0.002),
     (0.005, 0.005), (0.0051, 0.005), (0.001, 0.001), (99999, 50000.0), (1000, 1000.0), (0, 1.0),
     (-3, 1.0), (math.nan, 1.0), (math.inf, 1.0)],
)  # fmt: skip
def test_rounded_down(value, wanted):
    assert round_down(value) == wanted


def test_none_is_above_and_none_is_far_below(rng):
    for value in 10 ** rng.uniform(-12, 12, 500):
        assert round_down(value) <= value < 2.5 * round_down(value) * (1 + 1e-12)


def test_the_median_of_all(library):
    own = [colour_limits(entry.explanation) for entry in library.evidence]
    shared = SharedLimits(library.evidence).get()
    names = {name for each in own for name in each}
    assert set(shared) == names
    assert {"heatmap", "density"} <= names
    for name in names:
        every = sorted(each[name] for each in own if each.get(name, 0) > 0)
        if every:
            middle = (every[(len(every) - 1) // 2] + every[len(every) // 2]) / 2
            assert shared[name] == round_down(middle)


def test_one_strong_slide_leaves_the_others_as_they_are(library, monkeypatch):
    own = iter([{"heatmap": 90.0}, {"heatmap": 5000.0}, {"heatmap": 70.0}, {"heatmap": 0.0}])
    monkeypatch.setattr(limits, "colour_limits", lambda each: next(own))
    assert SharedLimits([library.evidence[0]] * 4).get() == {"heatmap": 50.0}


def test_of_very_many_some_are_asked(library, monkeypatch):
    asked = []
    monkeypatch.setattr(limits, "MOST_READ", 10)
    monkeypatch.setattr(limits, "colour_limits", lambda each: asked.append(each) or {"heatmap": 3})
    shared = SharedLimits([library.evidence[0]] * 95)
    assert shared.get() == {"heatmap": 2.0}
    assert shared.get() == {"heatmap": 2.0}
    assert 5 <= len(asked) <= 10
