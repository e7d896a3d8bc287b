"""What is measured of cohorts is counted rightly, and what is simulated takes what was measured."""

import csv
from types import SimpleNamespace

import pytest

from pathology.cohort.events import Ended, Started
from scripts import benchmark_cohort, simulate_cohort


@pytest.fixture
def runs(monkeypatch):
    """Runs over a cohort whose events, and their times, are told."""

    def runs(timed, workers):
        clock = iter([0.0, *(time for time, _ in timed), timed[-1][0]])
        engine = SimpleNamespace(run=lambda *_: (event for _, event in timed))
        monkeypatch.setattr(benchmark_cohort, "make_engine", lambda *_: engine)
        monkeypatch.setattr(benchmark_cohort.time, "perf_counter", lambda: next(clock))
        rows = [{"slide_id": name} for name in "abcdef"]
        tiles = dict(zip("abcdef", (10, 10, 20, 20, 10, 10), strict=True))
        return benchmark_cohort.run(rows, tiles, None, "local", workers)

    return runs


def test_speed_is_that_of_workers_which_all_have_work(runs):
    """One begins at 2 and takes 1 s for 10 tiles, the other at 3, and half as quick."""
    events = [
        (2, Started(0, "one")), (3, Ended(0, "one", "0.5", 1)), (3, Started(2, "one")),
        (3, Started(1, "two")), (5, Ended(1, "two", "1", 2)), (5, Started(3, "two")),
        (5, Ended(2, "one", "1", 2)), (5, Started(4, "one")), (6, Ended(4, "one", "0.5", 1)),
        (6, Started(5, "one")), (7, Ended(5, "one", "0.5", 1)), (9, Ended(3, "two", "2", 4)),
    ]  # fmt: skip
    speed = runs(events, 2)
    # From 5 to 7: two slides of one, half of the other's.
    assert speed.slides_per_s == pytest.approx(2.5 / 2)
    assert speed.tiles_per_s == pytest.approx(30 / 2)
    assert (speed.start_s, speed.wall_s) == pytest.approx((3, 9))
    assert speed.core_s_per_tile == pytest.approx(4 / 60)  # without the first of each


def test_a_worker_that_came_too_late_makes_no_speed(runs):
    events = [(1, Started(0, "one")), (2, Ended(0, "one", "1", 1)), (2, Started(1, "one"))]
    assert runs([*events, (3, Ended(1, "one", "1", 1))], 2) is None


def test_what_slides_cost_was_measured():
    verbs = simulate_cohort.verbs(
        simulate_cohort.read_costs(), simulate_cohort.PATH, simulate_cohort.DEVICE_TILES_S
    )
    assert set(verbs) == {"tile", "features", "explain"}
    for verb in verbs.values():
        assert min(verb.device_tiles_s, verb.file_bytes, verb.read_bytes) > 0
        assert verb.read_bytes < verb.file_bytes
    assert 0 < verbs["features"].host_s < 1e-3


def test_one_run_is_printed(monkeypatch, capsys):
    arguments = ("--verb", "features", "--slides", "40", "--gpus", "4", "--storage-gb-s", "0.1")
    monkeypatch.setattr("sys.argv", ["simulate_cohort", *arguments, "--fetch"])
    simulate_cohort.main()
    first, line = capsys.readouterr().out.splitlines()
    assert first.startswith("40 slides")
    assert "of the least that storage allows" in line


def test_the_table_is_that_of_the_script():
    with simulate_cohort.OUT.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(simulate_cohort.FIELDS)
    cases = simulate_cohort.studies(
        simulate_cohort.Cluster(), simulate_cohort.Plan(parallel=2), 10_000
    )
    assert [(row["study"], row["verb"]) for row in rows] == [(c.study, c.verb) for c in cases]
    for row in rows:
        shares = sum(float(row[wait.name.lower()]) for wait in simulate_cohort.Wait)
        assert shares == pytest.approx(1, abs=0.005)
        assert float(row["wall_s"]) >= float(row["least_s"]) - 1
