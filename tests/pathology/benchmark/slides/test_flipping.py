"""Tile flipping by hand, where removal is additive, and with ties."""

import numpy as np
import pytest
import torch

from pathology.benchmark.slides.bag_logits import BagLogits
from pathology.benchmark.slides.flipping import ORDERS, flip_tiles, random_ranks
from pathology.benchmark.slides.tile_methods import score_tiles
from tests.pathology.benchmark.slides.made import aggregator


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def bag():
    """A gated sum: every tile takes its contribution with it."""
    model = aggregator("bcos_gated_sum")
    features = torch.randn(10, 5, dtype=torch.float64)
    scores = score_tiles("contribution", model, features, 0).scores
    return BagLogits(model, features), scores


def test_by_hand(bag, rng):
    logits, scores = bag
    found = flip_tiles(logits, scores, 0, rng, steps=5)
    falling = scores.sort(descending=True).values
    whole, empty = float(logits.whole()[0]), float(logits.whole()[0] - scores.sum())
    most = [whole - float(falling[: 2 * i].sum()) for i in range(6)]
    least = [empty + float(falling[: 10 - 2 * i].sum()) for i in range(6)]
    assert found.most[1] == pytest.approx(most)
    assert found.least[1] == pytest.approx(least)
    sigmoid = lambda x: 1 / (1 + np.exp(-np.array(x)))  # noqa: E731
    assert found.most[0] == pytest.approx(sigmoid(most))
    assert found.aupc == pytest.approx([sigmoid(most).mean(), np.mean(most)])
    assert found.abpc == pytest.approx(
        [(sigmoid(least) - sigmoid(most)).mean(), np.mean(least) - np.mean(most)]
    )


def test_contributions_are_best_their_opposite_worst_and_ties_chance(bag, rng):
    logits, scores = bag
    best = flip_tiles(logits, scores, 0, rng).abpc
    worst = flip_tiles(logits, -scores, 0, rng).abpc
    assert best == pytest.approx(-worst)
    for _ in range(20):
        other = torch.from_numpy(rng.standard_normal(10))
        found = flip_tiles(logits, other, 0, rng).abpc
        assert (worst <= found + 1e-12).all()
        assert (found <= best + 1e-12).all()
    constants = [flip_tiles(logits, torch.ones(10), 0, rng).abpc[1] for _ in range(40)]
    # 200 random orders: their mean is 0 to within a few standard errors.
    assert abs(np.mean(constants)) < 0.1 * best[1]


def test_ends(bag, rng):
    logits, scores = bag
    found = flip_tiles(logits, scores, 0, rng)
    assert found.most.shape == (2, 101)
    assert found.most[1, 0] == pytest.approx(float(logits.whole()[0]))
    assert found.most[1, -1] == pytest.approx(found.least[1, -1])


def test_ranks():
    rng = np.random.default_rng(0)
    (ranks,) = random_ranks(torch.tensor([0.1, 3.0, -1.0]), rng)
    assert ranks.tolist() == [1, 0, 2]
    many = random_ranks(torch.tensor([1.0, 2.0, 1.0]), rng)
    assert len(many) == ORDERS
    assert all(ranks[1] == 0 and sorted(ranks) == [0, 1, 2] for ranks in many)
    first = [random_ranks(torch.zeros(4), rng)[0].argmin() for _ in range(200)]
    assert np.bincount(first, minlength=4).min() > 25  # 50 expected


def test_what_is_refused(bag, rng):
    with pytest.raises(ValueError, match="steps"):
        flip_tiles(*bag, 0, rng, steps=0)
    with pytest.raises(ValueError, match="NaN"):
        random_ranks(torch.tensor([np.nan]), rng)
