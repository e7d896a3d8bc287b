"""Work on many slides: order, failures, workers that die."""

import csv
import os
import signal
import threading
import time

import pandas as pd
import pytest

from pathology.cohort.choice import make_engine
from pathology.cohort.each_slide import each_slide
from pathology.cohort.events import Counted, Ended, Started
from pathology.errors import OutputError, SlideError, SlideOpenError
from tests.pathology.cohort.trouble import Trouble

ALL = ["a", "refuse 1", "b", "bug", "c", "odd", "d"]


def table(*names):
    return pd.DataFrame({"slide_id": names, "path": [f"/slides/{name}.tif" for name in names]})


def work_on(names, folder, workers=0, keep_going=False, failures=None, retries=1):
    return each_slide(
        table(*names),
        Trouble(folder),
        "working",
        engine=make_engine(workers=workers, retries=retries),
        keep_going=keep_going,
        failures=failures,
    )


def tried(folder):
    return (folder / "tried").read_text().splitlines()


def listed(path):
    with path.open(newline="") as file:
        return {row["slide_id"]: (row["error"], row["message"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_failures_are_listed_and_the_rest_is_done(tmp_path, capsys, workers):
    failures = tmp_path / "failures.csv"
    code = work_on(ALL, tmp_path, workers, True, failures)
    out = capsys.readouterr().out
    assert code == 3
    assert sorted(tried(tmp_path)) == sorted(ALL)
    assert [name for name in "abcd" if f"{name}: done" in out] == [*"abcd"]
    assert "3 of 7 slides failed" in out
    # In the order of the table, whatever the order in which they failed.
    assert listed(failures) == {
        "refuse 1": ("SlideOpenError", "/slides/refuse 1.tif: is no slide"),
        "bug": ("KeyError", "KeyError: 'nobody expected this'"),
        "odd": ("PathologyError" if workers else "OddError", "one and 2"),
    }
    assert list(listed(failures)) == ["refuse 1", "bug", "odd"]
    # A run without failures leaves no list of an earlier one.
    assert work_on("a", tmp_path, workers, True, failures) == 0
    assert not failures.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_failure_stops_a_run(tmp_path, workers):
    # Slow ones: on a busy machine a worker may start seconds after the other.
    names = ["a", "refuse 1", *(f"slow {i}" for i in range(400))]
    with pytest.raises(SlideOpenError, match="is no slide"):
        work_on(names, tmp_path, workers)
    assert len(tried(tmp_path)) < 402


@pytest.mark.parametrize("workers", [0, 2])
def test_an_output_that_cannot_be_written_always_stops(tmp_path, workers):
    with pytest.raises(OutputError, match="disk full"):
        work_on(["disk", "a"], tmp_path, workers, True)


def test_what_nobody_expected_keeps_its_traceback(tmp_path):
    with pytest.raises(KeyError) as caught:
        work_on(["bug"], tmp_path, workers=1)
    assert "trouble.py" in caught.value.__notes__[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_costs_its_slide_only(tmp_path, capfd, workers):
    names = ["a", "segfault", "b", "memory", "c", "exit", "d", "e"]
    failures = tmp_path / "failures.csv"
    code = work_on(names, tmp_path, workers, True, failures)
    assert code == 3
    # Those twice: none is tried for ever.
    assert sorted(tried(tmp_path)) == sorted([*names, "segfault", "memory", "exit"])
    messages = {name: message for name, (_, message) in listed(failures).items()}
    assert set(messages) == {"segfault", "memory", "exit"}
    assert messages["segfault"] == (
        "/slides/segfault.tif: tried 2 times; the last time the process that worked on it ended by"
        " SIGSEGV; the file may be damaged"
    )
    assert "was killed, most often for want of memory" in messages["memory"]
    assert "ended with exit code 7" in messages["exit"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["wait", "wait once"])
def test_a_worker_that_is_killed_from_outside_costs_a_try_only(tmp_path, name):
    def kill():
        deadline = time.monotonic() + 60
        while not (waiting := list(tmp_path.glob("*.waits"))) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(int(waiting[0].name.split(".")[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failures = tmp_path / "failures.csv"
    once = "once" in name
    code = work_on(["a", name, "b", "c"], tmp_path, 2, True, failures, retries=int(once))
    killer.join()
    assert code == (0 if once else 3)
    assert failures.exists() != once
    assert sorted(tried(tmp_path)) == ["a", "b", "c", *[name] * (1 + once)]


def test_a_worker_that_dies_stops_a_run_that_may_not_go_on(tmp_path):
    with pytest.raises(SlideError, match=r"memory\.tif: the process that worked on it was killed"):
        work_on(["memory", "a"], tmp_path, workers=1, retries=0)


def test_workers_load_no_torch_and_have_a_core_each(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert work_on(["torch 1", "torch 2"], tmp_path, workers=2) == 0
    assert capsys.readouterr().out.count(": False 1") == 2
    assert "OMP_NUM_THREADS" not in os.environ


class Listener:
    """Keeps what it is told, and how the run ended."""

    def __init__(self):
        self.events, self.ended_by = [], []

    def told(self, event):
        self.events.append(event)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.ended_by.append(kind)


@pytest.mark.parametrize("workers", [0, 1])
def test_whoever_listens_is_told_all_and_how_the_run_ended(tmp_path, workers):
    listener = Listener()
    with pytest.raises(SlideOpenError):
        each_slide(
            table("count 2", "refuse", "a"),
            Trouble(tmp_path),
            "working",
            engine=make_engine(workers=workers),
            telling=listener,
        )
    assert [type(event) for event in listener.events] == [Started, Counted, Ended, Started, Ended]
    assert listener.ended_by == [SlideOpenError]


def test_a_lost_try_is_said_so_in_a_line(tmp_path, capsys):
    assert work_on(["exit once"], tmp_path, 1) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "/slides/exit once.tif: the process that worked on it ended with exit code 7; the file may"
        " be damaged; it will be tried again"
    )
    assert second.startswith("exit once: done")
