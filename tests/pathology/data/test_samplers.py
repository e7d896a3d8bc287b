"""What an epoch shows and in which order: counted, not eyeballed."""

import numpy as np
import pytest

from pathology.data.samplers import TileSampler, draw_weights

# Slides of uneven sizes; the second half of each is of class 1, but slide 0 has class 0 only.
SIZES = [40, 100, 300, 7]
SLIDES = np.repeat(np.arange(4), SIZES)
LABELS = np.concatenate([np.zeros(40), *[np.arange(n) * 2 >= n for n in SIZES[1:]]]).astype(int)
COUNT = len(SLIDES)


def test_without_balance_each_tile_is_shown_once():
    for stretch in (1, 5, 32):
        order = list(TileSampler(SLIDES, stretch=stretch, stretches=3))
        assert sorted(order) == list(range(COUNT))


def test_the_order_depends_on_seed_and_epoch_alone():
    first, again, other = (TileSampler(SLIDES, seed=seed) for seed in (0, 0, 1))
    epochs = [list(first) for _ in range(3)]
    assert [list(again) for _ in range(3)] == epochs
    assert epochs[0] != epochs[1]
    assert list(other) != epochs[0]
    again.set_epoch(1)
    assert list(again) == epochs[1]


def test_a_resumed_order_is_the_rest_of_it():
    sampler = TileSampler(SLIDES)
    whole = list(sampler)
    sampler.set_epoch(0)
    sampler.skipped = 100
    assert list(sampler) == whole[100:]
    sampler.set_epoch(0)
    assert list(sampler) == whole


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch_without_overlap(world_size):
    samplers = [TileSampler(SLIDES, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(samplers[0])} == {-(-COUNT // world_size)}
    shown = np.bincount(np.concatenate(parts), minlength=COUNT)
    assert shown.min() == 1
    assert shown.sum() - COUNT == -COUNT % world_size  # padding only


def test_two_ranks_of_an_even_number_are_disjoint():
    parts = [set(TileSampler(SLIDES[:446], rank=r, world_size=2)) for r in range(2)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(range(446))


def test_batches_come_from_few_slides_at_a_time():
    slides = np.repeat(np.arange(1000), 100)
    near, far = (
        np.array(list(TileSampler(slides, stretch=stretch, stretches=8))) for stretch in (32, 1)
    )
    windows = near[: len(near) // 256 * 256].reshape(-1, 256)
    per_window = [len(np.unique(slides[window])) for window in windows]
    assert max(per_window) <= 4 * 8  # a window may lie across some mixes of 8
    assert len(np.unique(slides[far[:256]])) > 200


def test_a_mix_is_shuffled_and_drawn_from_the_whole_cohort():
    slides = np.repeat(np.arange(1000), 100)
    order = np.array(list(TileSampler(slides, stretch=32, stretches=32)))
    first = slides[order[:1024]]
    assert first.min() < 100  # a uniform draw of 32 slides misses a tenth 3 times in 100
    assert first.max() > 900
    # Neighbours follow one another no more often than 32 shuffled stretches make it likely.
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.05


def test_no_part_of_an_epoch_is_of_few_slides():
    slides = np.repeat(np.arange(33), 32)  # one stretch, or two, more than a mix
    for epoch in range(20):
        order = TileSampler(slides, stretch=32, stretches=32).epoch_order(epoch)
        assert min(len(np.unique(slides[order[i : i + 32]])) for i in range(0, 1025, 32)) >= 8


def test_stretches_are_cut_elsewhere_in_each_epoch():
    slides = np.zeros(320, int)
    sampler = TileSampler(slides, stretch=32, stretches=1)
    starts = {min(list(sampler)[:16]) % 32 for _ in range(8)}
    assert len(starts) > 1


def test_nearby_says_who_are_neighbours():
    nearby = np.arange(64).reshape(8, 8).T.ravel()
    sampler = TileSampler(np.zeros(64, int), nearby=nearby, stretch=8, stretches=1)
    sampler.set_epoch(5)
    order = list(sampler)
    together = [set(order[i : i + 4]) for i in range(8, 56, 8)]
    assert all(len({tile % 8 for tile in group}) <= 2 for group in together)


def weighed(labels, groups):
    weights = draw_weights(labels, groups)
    sampler = TileSampler(SLIDES, weights=weights, strata=labels)
    return np.concatenate([list(sampler) for _ in range(20)])


def test_classes_are_drawn_equally_to_within_a_tile():
    sampler = TileSampler(SLIDES, weights=draw_weights(LABELS, None), strata=LABELS)
    for _ in range(3):
        drawn = np.bincount(LABELS[list(sampler)])
        assert abs(drawn[0] - drawn[1]) <= 1
        assert drawn.sum() == COUNT


def test_slides_are_drawn_equally_whatever_their_size():
    drawn = weighed(np.zeros(COUNT, int), SLIDES)
    # 5 standard deviations of independent draws; systematic ones scatter less
    share = np.bincount(SLIDES[drawn]) / len(drawn)
    assert np.abs(share - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(drawn))


def test_within_a_class_slides_are_drawn_equally():
    weights = draw_weights(LABELS, SLIDES)
    assert weights.sum() == pytest.approx(1)
    for label, slides in ((0, [0, 1, 2, 3]), (1, [1, 2, 3])):
        share = [weights[(label == LABELS) & (slide == SLIDES)].sum() for slide in slides]
        assert share == pytest.approx([0.5 / len(slides)] * len(slides))


def test_a_tile_is_drawn_as_often_as_its_weight_says_rounded():
    weights = draw_weights(LABELS, SLIDES)
    sampler = TileSampler(SLIDES, weights=weights, strata=LABELS)
    wanted = weights * COUNT
    for _ in range(5):
        drawn = np.bincount(list(sampler), minlength=COUNT)
        assert (drawn >= np.floor(wanted - 1e-9)).all()
        assert (drawn <= np.ceil(wanted + 1e-9)).all()


def test_copies_of_a_tile_are_spread_over_the_epoch():
    labels = np.r_[np.zeros(9900, int), np.ones(100, int)]
    sampler = TileSampler(
        np.repeat(np.arange(100), 100), weights=draw_weights(labels, None), strata=labels
    )
    order = np.array(list(sampler))
    places = np.flatnonzero(order == 9950)
    assert len(places) in (50, 51)
    assert np.ptp(places) > 5000  # of 10,000
    # All 50 in one mix of 1024 tiles is what a stretch of copies would give.
    assert np.bincount(places // 1024, minlength=10).max() < 20


def test_a_rank_that_is_none_is_refused():
    with pytest.raises(ValueError, match="rank"):
        TileSampler(SLIDES, rank=2, world_size=2)


def test_an_empty_stretch_is_refused():
    with pytest.raises(ValueError, match="stretch and stretches must be at least 1, got 0"):
        TileSampler(SLIDES, stretch=0)
