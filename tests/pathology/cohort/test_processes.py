"""Processes of this machine: what they tell, tries, workers that die at once, graphics cards."""

import os
import time
from collections import Counter
from contextlib import closing

import pytest

from pathology.cohort import processes
from pathology.cohort.counting import count
from pathology.cohort.engine import Needs
from pathology.cohort.events import Counted, Ended, Lost, Started
from pathology.cohort.processes import Processes
from pathology.cohort.worker import worker_name
from pathology.cohort.worker_process import WorkerProcess
from pathology.errors import SlideError
from tests.pathology.cohort.trouble import Trouble


def rows(*names):
    return [{"slide_id": name, "path": f"/slides/{name}.tif"} for name in names]


def run(engine, names, folder, needs=None):
    with closing(engine.run(rows(*names), Trouble(folder), needs or Needs())) as events:
        return list(events)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_every_slide_starts_and_ends_once_by_a_worker_with_a_name(tmp_path):
    events = run(Processes(2), "abcde", tmp_path)
    for kind in (Started, Ended):
        assert sorted(event.index for event in of(kind, events)) == [*range(5)]
    assert len({event.worker for event in events}) == 2
    host = worker_name().rpartition(":")[0]
    for event in of(Ended, events):
        name, process = event.result.split(": done by ")
        assert name == "abcde"[event.index]
        assert event.worker == f"{host}:{process}"
        assert (event.tries, event.seconds >= 0) == (1, True)


def test_there_are_no_more_workers_than_slides(tmp_path):
    assert len({event.worker for event in run(Processes(3), "a", tmp_path)}) == 1


def test_what_work_counts_is_told_with_the_rest_at_the_end(tmp_path):
    events = run(Processes(1), ["count 5", "a", "count 7"], tmp_path)
    counted = Counter()
    for event in of(Counted, events):
        counted[event.index] += event.tiles
    assert counted == {0: 5, 2: 7}
    assert sum(event.waited_s for event in of(Counted, events)) == pytest.approx(0.25 * 12)
    # Nothing is told of a slide that has ended.
    for index in (0, 2):
        about = [type(event) for event in events if event.index == index]
        assert about[0], about[-1] == (Started, Ended)
        assert about.count(Counted) < (5, 0, 7)[index]  # sums, not every batch


def test_tiles_of_a_slide_that_fails_are_told(tmp_path):
    events = run(Processes(1), ["count 3 refuse"], tmp_path)
    assert sum(event.tiles for event in of(Counted, events)) == 3
    assert isinstance(events[-1].result, SlideError)


def test_a_slide_whose_worker_died_is_tried_again_last_by_a_fresh_one(tmp_path):
    events = run(Processes(1), ["memory once", "a", "b"], tmp_path)
    (lost,) = of(Lost, events)
    assert (lost.index, lost.tries) == (0, 1)
    assert "killed, most often for want of memory" in lost.why
    started = of(Started, events)
    assert [(event.index, event.tries) for event in started] == [(0, 1), (1, 1), (2, 1), (0, 2)]
    first, second, third, last = (event.worker for event in started)
    assert lost.worker == first
    assert second == third
    assert len({first, second, last}) == 3
    assert (events[-1].index, events[-1].tries, events[-1].result[:17]) == (
        0,
        2,
        "memory once: done",
    )


@pytest.mark.parametrize("retries", [0, 2])
def test_tries_end(tmp_path, retries):
    events = run(Processes(2, retries), ["exit", "a"], tmp_path)
    assert [event.tries for event in of(Lost, events)] == [*range(1, retries + 1)]
    (ended,) = (event for event in of(Ended, events) if event.index == 0)
    assert ended.tries == retries + 1
    assert isinstance(ended.result, SlideError)
    began = "the process" if not retries else "tried 3 times; the last time the process"
    why = "that worked on it ended with exit code 7; the file may be damaged"
    assert str(ended.result) == f"/slides/exit.tif: {began} {why}"


def test_slides_whose_worker_dies_at_once_are_not_lost(tmp_path, monkeypatch):
    give = WorkerProcess.give

    def give_to_the_dead(worker, index, row):
        worker.process.kill()
        worker.process.join()
        return give(worker, index, row)

    monkeypatch.setattr(WorkerProcess, "give", give_to_the_dead)
    events = run(Processes(2, retries=1), "abc", tmp_path)
    assert sorted((event.index, event.tries) for event in of(Ended, events)) == [
        (0, 2),
        (1, 2),
        (2, 2),
    ]
    assert not (tmp_path / "tried").exists()


class Elsewhere:
    """Work that cannot be unpickled in a worker."""

    def __reduce__(self):
        return not_there, (os.getpid(),)


def not_there(process):
    if os.getpid() != process:
        raise ImportError("no module of that name here")
    return Elsewhere()


def test_work_that_a_worker_cannot_load_is_said_so(tmp_path):
    with closing(Processes(1).run(rows("a", "b"), Elsewhere(), Needs())) as events:
        ended = of(Ended, list(events))
    assert [str(event.result) for event in ended] == ["no module of that name here"] * 2


@pytest.mark.parametrize(
    ("cards", "gpus", "seen"),
    [
        (["4", "GPU-7"], 1.0, {"4": 2, "GPU-7": 1}),
        (["4", "GPU-7"], 0.0, {"as it was": 3}),
        (["4"], 1.0, {"as it was": 3}),
        ([], 1.0, {"as it was": 3}),
    ],
)
def test_workers_see_one_of_several_cards_in_turn(tmp_path, monkeypatch, cards, gpus, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    monkeypatch.setattr(processes, "graphics_cards", lambda: cards)
    events = run(Processes(3), ["card 1", "card 2", "card 3"], tmp_path, Needs(gpus=gpus))
    assert Counter(event.result for event in of(Ended, events)) == seen
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "as it was"


def test_the_successor_of_a_worker_that_died_has_its_card(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "graphics_cards", lambda: ["4", "7"])
    names = ["card memory once", "card wait", "card 1", "card 2"]
    with closing(Processes(2).run(rows(*names), Trouble(tmp_path), Needs(gpus=1))) as events:
        results = []
        while len(results) < 2:  # the other worker waits for ever
            event = next(events)
            if isinstance(event, Ended):
                results.append(event.result)
    assert results == ["4", "4"]


def test_a_worker_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    events = Processes(1).run(rows("stubborn wait"), Trouble(tmp_path), Needs())
    process = int(next(events).worker.rpartition(":")[2])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.waits")) and time.monotonic() < deadline:
        time.sleep(0.02)
    events.close()
    with pytest.raises(ProcessLookupError):  # nor is it left for somebody to wait for
        os.kill(process, 0)


@pytest.mark.parametrize(("workers", "retries"), [(0, 1), (1, -1)])
def test_numbers_that_make_no_sense_are_refused(workers, retries):
    with pytest.raises(ValueError, match="must be at least"):
        Processes(workers, retries)


def test_counting_without_an_engine_does_nothing():
    count(tiles=1, waited_s=0.5)
