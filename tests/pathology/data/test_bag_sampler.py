"""Bags of an epoch, and the tiles that are drawn of each."""

import numpy as np
import pytest

from pathology.data.bag_sampler import BagSampler, Draw, draw_tiles, earlier, spread_tiles
from pathology.data.samplers import draw_weights

KINDS = np.array([0] * 30 + [1] * 6)


def bags(draws):
    return np.array([draw.bag for draw in draws])


def test_each_bag_is_shown_once_an_epoch_and_knows_which():
    sampler = BagSampler(KINDS)
    for epoch in range(3):
        draws = list(sampler)
        assert sorted(bags(draws)) == list(range(36))
        assert {draw.epoch for draw in draws} == {epoch}
        assert {draw.copy for draw in draws} == {0}


def test_draws_depend_on_seed_and_epoch_alone():
    first, again, other = (BagSampler(KINDS, seed=seed) for seed in (3, 3, 4))
    epochs = [list(first) for _ in range(2)]
    assert [list(again) for _ in range(2)] == epochs
    assert bags(epochs[0]).tolist() != bags(epochs[1]).tolist()
    assert list(other) != epochs[0]
    again.set_epoch(1)
    assert list(again) == epochs[1]


def test_kinds_are_spread_over_an_epoch():
    for seed in range(20):
        rare = KINDS[bags(BagSampler(KINDS, seed=seed))] == 1
        # 6 of 36: one in each sixth, and no stretch of 12 without any.
        assert rare.reshape(6, 6).sum(1).max() <= 2
        assert all(rare[i : i + 12].any() for i in range(25))


def test_balance_draws_kinds_equally_often_and_numbers_copies():
    weights = draw_weights(KINDS, None)
    draws = list(BagSampler(KINDS, weights=weights))
    assert len(draws) == 36
    assert (KINDS[bags(draws)] == 1).sum() == 18
    assert len(set(draws)) == 36  # a bag that comes again is another draw
    copies = [draw.copy for draw in draws if draw.bag == 31]
    assert copies == list(range(len(copies)))
    assert len(copies) == 3
    places = np.flatnonzero(bags(draws) == 31)
    assert np.diff(places).min() > 2  # not side by side


def test_a_resumed_epoch_is_the_rest_of_it():
    sampler = BagSampler(KINDS, weights=draw_weights(KINDS, None))
    whole = list(sampler)
    sampler.set_epoch(0)
    sampler.skipped = 10
    assert list(sampler) == whole[10:]


@pytest.mark.parametrize("world_size", [2, 5])
def test_devices_share_an_epoch_without_overlap(world_size):
    one = list(BagSampler(KINDS, seed=1))
    parts = [
        list(BagSampler(KINDS, seed=1, rank=r, world_size=world_size)) for r in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1
    together = [draw for part in parts for draw in part]
    assert together[:36] == one
    assert len(together) - 36 == -36 % world_size  # the first few again, to come out even
    assert together[36:] == one[: len(together) - 36]


def test_earlier_counts_what_came_before():
    assert earlier(np.array([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]


def test_tiles_of_a_draw():
    draw = Draw(5, 2, 0)
    chosen = draw_tiles(100, 10, 0.0, 7, draw)
    assert len(set(chosen)) == 10
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, draw_tiles(100, 10, 0.0, 7, draw))
    for other in (Draw(6, 2, 0), Draw(5, 3, 0), Draw(5, 2, 1)):
        assert not np.array_equal(chosen, draw_tiles(100, 10, 0.0, 7, other))
    assert not np.array_equal(chosen, draw_tiles(100, 10, 0.0, 8, draw))


def test_small_bags_are_whole():
    assert draw_tiles(10, 10, 0.0, 0, Draw(0, 0, 0)).tolist() == list(range(10))
    assert draw_tiles(10, None, 0.0, 0, Draw(0, 0, 0)).tolist() == list(range(10))


def test_dropout_leaves_its_share_out_and_one_tile_in():
    assert len(draw_tiles(10, None, 0.3, 0, Draw(0, 0, 0))) == 7
    assert len(draw_tiles(10, 5, 0.3, 0, Draw(0, 0, 0))) == 5
    assert len(draw_tiles(1, None, 0.99, 0, Draw(0, 0, 0))) == 1


def test_all_tiles_are_drawn_equally_often():
    counts = np.zeros(20)
    for epoch in range(2000):
        counts[draw_tiles(20, 5, 0.0, 0, Draw(0, epoch, 0))] += 1
    # Binomial(2000, 1/4): standard deviation 19.4.
    assert np.abs(counts - 500).max() < 5 * 19.4


def test_evaluation_spreads_tiles_evenly():
    assert spread_tiles(5, None).tolist() == spread_tiles(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread_tiles(100, 4).tolist() == [12, 37, 62, 87]
    assert spread_tiles(5, 4).tolist() == [0, 1, 3, 4]
