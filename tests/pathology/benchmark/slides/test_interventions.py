"""Necessity, sufficiency and cut lesions, against aggregators run on the bags themselves."""

import numpy as np
import pytest
import torch

from pathology.benchmark.slides.bag_logits import BagLogits
from pathology.benchmark.slides.interventions import (
    lesion_curve,
    necessity,
    sufficiency,
    top_sets,
)
from tests.pathology.benchmark.slides.made import aggregator


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@torch.no_grad()
def run(model, *parts):
    """Probability and logit of the tiles together."""
    logit = model(torch.cat(parts)[None])[0, 0]
    return np.array([float(logit.sigmoid()), float(logit)])


@pytest.mark.parametrize("name", ["abmil", "bcos_gated_sum", "transmil"])
def test_as_run_on_the_bags(name, rng):
    model = aggregator(name)
    features = torch.randn(6, 5, dtype=torch.float64)
    others = [torch.randn(n, 5, dtype=torch.float64) for n in (4, 9)]
    sets = rng.random((3, 6)) < 0.5
    sets[0], sets[1] = False, True
    lost = necessity(BagLogits(model, features), sets, 0)
    gained = sufficiency(model, features, sets, others, 0)
    for i, one in enumerate(sets):
        inside, outside = features[torch.from_numpy(one)], features[torch.from_numpy(~one)]
        expected = run(model, features) - run(model, outside)
        assert lost[:, i] == pytest.approx(expected, abs=1e-10)
        gains = [run(model, other, inside) - run(model, other) for other in others]
        assert gained[:, i] == pytest.approx(np.mean(gains, axis=0), abs=1e-10)
    assert lost[:, 0] == pytest.approx(0)
    assert gained[:, 0] == pytest.approx(0)


def test_sufficiency_needs_other_bags():
    with pytest.raises(ValueError, match="got none"):
        sufficiency(aggregator("abmil"), torch.randn(2, 5), np.ones((1, 2), bool), [], 0)


def test_top_sets(rng):
    assert top_sets(torch.tensor([1.0, 3.0, 2.0]), 2, rng).tolist() == [[False, True, True]]
    assert top_sets(torch.tensor([1.0, 3.0]), 9, rng).all()
    ties = top_sets(torch.tensor([1.0, 3.0, 1.0]), 2, rng)
    assert ties[:, 1].all()
    assert (ties.sum(1) == 2).all()
    with pytest.raises(ValueError, match="at least 1"):
        top_sets(torch.tensor([1.0]), 0, rng)


def test_a_cut_lesion_by_hand(rng):
    """Of a gated sum, whose lesion tiles are all alike, every choice gives the same."""
    model = aggregator("bcos_gated_sum")
    features = torch.randn(6, 5, dtype=torch.float64)
    features[:3] = features[0]
    lesion = np.array([True] * 3 + [False] * 3)
    curve = lesion_curve(BagLogits(model, features), lesion, (0, 1, 2, 3, 4), 0, rng)
    assert curve.tiles.tolist() == [0, 1, 2, 3]
    for i in range(4):
        expected = run(model, features[3:], features[:i])
        assert [curve.probability[i], curve.logit[i]] == pytest.approx(expected, abs=1e-10)
        assert curve.found[i] == (expected[1] >= 0)


def test_a_cut_lesion_is_a_mean_over_choices(rng):
    model = aggregator("abmil")
    features = torch.randn(5, 5, dtype=torch.float64)
    lesion = np.array([True, True, False, False, False])
    curve = lesion_curve(BagLogits(model, features), lesion, (1,), 0, rng, choices=400)
    expected = np.mean([run(model, features[i : i + 1], features[2:]) for i in (0, 1)], axis=0)
    spread = abs(run(model, features[:1], features[2:]) - run(model, features[1:]))[1]
    assert curve.logit[0] == pytest.approx(expected[1], abs=0.2 * spread + 1e-9)
    with pytest.raises(ValueError, match="no lesion tile"):
        lesion_curve(BagLogits(model, features), np.zeros(5, bool), (1,), 0, rng)
