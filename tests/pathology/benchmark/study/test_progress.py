"""A study can be followed: lines in a log, time that is left, and a stop."""

import pytest

from pathology.benchmark.study import progress
from pathology.benchmark.study.progress import Outcome, Progress, duration


def made(state, what="a", seconds=0.0, message=""):
    return [Outcome("s", "grid", what, state, message, seconds)]


def test_a_log_has_a_line_for_what_took_work(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("maps", 5) as bar:
        bar.step(made("found"))
        now[0] = 30.0
        bar.step(made("done", "b", 30.0))
        bar.teller("c")("epoch 1")  # a line a minute, and only of what is new
        now[0] = 95.0
        bar.teller("c")("epoch 2")
        now[0] = 200.0
        bar.teller("c")("epoch 2")
        now[0] = 230.0
        bar.step(made("failed", "c", 200.0, "no"))
        bar.step(made("refused", "d", 0.0, "not on this"))
        bar.step(made("blocked", "e"))
    assert capsys.readouterr().out.splitlines() == [
        "maps 2/5: b, 30 s; about 90 s left",
        "maps 2/5: c: epoch 2",
        "maps 3/5: c, failed after 3 min; about 4 min left",
        "failed: c (grid): no",
        "refused: d (grid): not on this",
        "maps: 1 of 5 done before",
    ]


def test_what_is_stopped_is_told_when_it_tells():
    with Progress("trainings", 1) as bar:
        tell = bar.teller("a")
        tell("epoch 1")
        bar.stop()
        with pytest.raises(KeyboardInterrupt):
            tell("epoch 1")


def test_times_are_read_at_once():
    assert [duration(each) for each in (0.3, 99, 101, 5900, 9000)] == [
        "0 s", "99 s", "2 min", "98 min", "2.5 h",
    ]  # fmt: skip
