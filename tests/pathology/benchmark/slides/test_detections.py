"""Detections by hand, and FROC of planted lesions."""

import numpy as np
import pytest

from pathology.benchmark.slides.detections import detect, hits_of, lesions_of
from tests.pathology.benchmark.slides.made import planted_bag


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_local_maxima_by_hand(rng):
    bag = planted_bag("a", 0, rng, side=3)
    assert detect(bag, np.array([9.0, 1, 2, 3, 4, 5, 6, 7, 8])).tolist() == [0, 8]
    assert detect(bag, np.arange(9.0)).tolist() == [8]


def test_as_by_looking_at_every_pair(rng):
    bag = planted_bag("a", 0, rng, side=7)
    scores = rng.permutation(49).astype(float)
    near = np.abs(bag.corners[:, None] - bag.corners[None]).max(-1) <= bag.tile_px
    expected = [i for i in range(49) if scores[i] == scores[near[i]].max()]
    assert detect(bag, scores).tolist() == expected


def test_tiles_that_there_are_not_are_no_neighbours(rng):
    """Tiles left out as glass leave a gap."""
    bag = planted_bag("a", 0, rng, side=3)
    keep = np.array([0, 2, 8])
    object.__setattr__(bag, "corners", bag.corners[keep])
    assert detect(bag, np.array([1.0, 2.0, 3.0])).tolist() == [0, 1, 2]


def test_hits_of_a_lesion_and_off_it(rng):
    # 6 rows of 12 tiles of 64 um: 768 x 384 um, over the limit of isolated tumour cells.
    bag = planted_bag("a", 72, rng, side=12)
    lesions = lesions_of(bag)
    assert len(lesions.targets) == 1
    scores = np.linspace(0.1, 1, 144)
    scores[30], scores[143] = 5, 4  # inside, and far off
    hits = hits_of(bag, lesions, scores)
    assert hits.found.tolist() == [5]
    assert hits.false.tolist() == [4]


def test_small_lesions_count_neither_way(rng):
    bag = planted_bag("a", 1, rng, side=12)  # 64 um
    lesions = lesions_of(bag)
    assert not lesions.targets
    scores = np.linspace(0.1, 1, 144)
    scores[0] = 5
    hits = hits_of(bag, lesions, scores)
    assert hits.false.tolist() == [1]  # the last tile; the one in the small lesion is ignored
    assert lesions_of(planted_bag("b", 0, rng)) is None
