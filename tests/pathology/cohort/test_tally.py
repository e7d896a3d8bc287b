"""How a run stands, and how long the rest of it takes, by a clock of the test's own."""

import heapq
from itertools import count

import pytest

from pathology.cohort.events import Counted, Ended, Lost, Started
from pathology.cohort.tally import Speed, Tally


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def rows(number):
    return [{"slide_id": f"s{i}", "path": f"s{i}.svs"} for i in range(number)]


def run(tally, clock, seconds, workers, tiles_per_s=100.0, every_s=None):
    """Slides of so many seconds each, 0 for those without a tile; yields now and then."""
    heap, order, turn = [], iter(range(len(seconds))), count()
    for worker in range(workers):
        heapq.heappush(heap, (clock.now, next(turn), worker, None))
    while heap:
        at, _, worker, index = heapq.heappop(heap)
        clock.now = max(clock.now, at)
        if index is not None:
            name = f"w{worker}"
            if seconds[index]:
                tiles = int(tiles_per_s * seconds[index])
                tally.take(Counted(index, name, tiles, 0.25 * seconds[index]))
            tally.take(Ended(index, name, "a line", seconds[index] or 0.01))
            yield clock.now
        index = next(order, None)
        if index is None:
            continue
        tally.take(Started(index, f"w{worker}"))
        heapq.heappush(heap, (clock.now + (seconds[index] or 0.01), next(turn), worker, index))


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("known", [True, False])
def test_slides_that_were_done_before_do_not_make_the_estimate_a_lie(workers, known):
    # The first 300 of 500 were done; the rest takes ten seconds each.
    clock = Clock()
    done = [f"s{i}" for i in range(300)] if known else []
    tally = Tally(rows(500), done, clock)
    estimates = {}
    for now in run(tally, clock, [0.0] * 300 + [10.0] * 200, workers):
        estimates[tally.ended] = (now, tally.left_s)
    end = clock.now
    for ended in (340, 400, 450, 490):
        now, left_s = estimates[ended]
        assert left_s == pytest.approx(end - now, rel=0.15, abs=10)
    assert (tally.done, tally.there, tally.left_s) == (500, 300, 0.0)


def test_slides_done_before_among_others_are_not_waited_for():
    clock = Clock()
    tally = Tally(rows(400), [f"s{i}" for i in range(0, 400, 2)], clock)
    for now in run(tally, clock, [0.0, 10.0] * 200, 2):
        if tally.ended == 100:
            then, left_s = now, tally.left_s
    assert left_s == pytest.approx(clock.now - then, rel=0.1)


def test_slides_that_are_made_anew_are_reckoned_with():
    # As with --overwrite: all were done, and all are made again.
    clock = Clock()
    tally = Tally(rows(40), [f"s{i}" for i in range(40)], clock)
    assert tally.left_s == 0.0
    for now in run(tally, clock, [10.0] * 40, 2):
        if tally.ended == 10:
            then, left_s = now, tally.left_s
    assert left_s == pytest.approx(clock.now - then, rel=0.1)
    assert tally.there == 0


def test_large_slides_that_are_not_done_yet_are_reckoned_with():
    # Eight workers, every fourth slide takes a hundred times as long: the quick ones end first.
    clock = Clock()
    tally = Tally(rows(800), (), clock)
    errors = []
    seconds = [100.0 if i % 4 == 0 else 1.0 for i in range(800)]
    at = []
    for now in run(tally, clock, seconds, 8):
        at.append((tally.ended, now, tally.left_s))
    for ended, now, left_s in at:
        if 100 <= ended <= 700:
            errors.append(left_s / (clock.now - now))
    assert min(errors) > 0.7
    assert max(errors) < 1.3


def test_work_that_counts_no_tiles_has_an_estimate_too():
    clock = Clock()
    tally = Tally(rows(4), ["s0"], clock)
    tally.take(Started(0, "w"))
    tally.take(Ended(0, "w", "was there", 0.01))
    tally.take(Started(1, "w"))
    assert tally.left_s is None  # nobody can know
    clock.now += 10
    tally.take(Ended(1, "w", "made", 10.0))
    assert tally.left_s == pytest.approx(20.0)
    assert (tally.there, tally.waiting, tally.tiles_per_s) == (1, 2, 0.0)


def test_speed_and_waiting_are_of_all_workers_together():
    clock = Clock()
    tally = Tally(rows(40), (), clock)
    for _ in run(tally, clock, [10.0] * 40, 4):
        assert tally.waited_share == pytest.approx(0.25)
        if tally.ended % 4 == 0:  # all have told
            assert tally.tiles_per_s == pytest.approx(400)
    assert tally.mean_tiles_per_s == pytest.approx(400)
    assert tally.mean_waited_share == pytest.approx(0.25)
    clock.now += 600
    assert tally.tiles_per_s < 1


def test_states_add_up_when_workers_die_and_slides_are_begun_twice():
    clock = Clock()
    tally = Tally(rows(5), (), clock)

    def states():
        return tally.done, tally.failed, tally.working, tally.waiting, tally.workers

    tally.take(Started(0, "a"))
    tally.take(Started(1, "b"))
    assert states() == (0, 0, 2, 3, 2)
    tally.take(Counted(0, "a", 10, 1.0))
    tally.take(Lost(0, "a", "killed", 1))
    assert states() == (0, 0, 1, 4, 1)
    tally.take(Started(0, "c", 2))
    assert tally.of_try(0, "c") == (0, 0.0)  # what the dead one did is not this one's
    tally.take(Counted(0, "c", 7, 0.5))
    assert tally.of_try(0, "c") == (7, 0.5)
    tally.take(Started(1, "d", 2))  # b is slow: it is begun once more
    assert states() == (0, 0, 2, 3, 3)
    tally.take(Ended(1, "d", "a line", 1.0, 2))
    assert states() == (1, 0, 1, 3, 2)  # b was stopped
    tally.take(Ended(0, "c", ValueError("no"), 1.0, 2))
    assert states() == (1, 1, 0, 3, 2)
    assert (tally.tries, tally.losses, tally.tiles) == (4, 1, 17)


def test_tiles_that_are_told_after_the_end_of_their_slide_count():
    tally = Tally(rows(2), (), Clock())
    tally.take(Started(0, "a"))
    tally.take(Started(1, "a"))
    tally.take(Ended(1, "a", "was there", 0.0))
    tally.take(Ended(0, "a", "a line", 5.0))
    tally.take(Counted(0, "a", 10, 1.0))
    assert (tally.tiles, tally.there) == (10, 1)


def test_a_speed_is_the_same_however_often_it_is_told():
    often, seldom = Speed(30), Speed(30)
    for second in range(120):
        often.add(5, second, second + 1)
        if second % 40 == 39:
            seldom.add(200, second - 39, second + 1)
    assert often.at(120) == pytest.approx(5)
    assert seldom.at(120) == pytest.approx(5)
    assert Speed().at(3.0) == 0.0
