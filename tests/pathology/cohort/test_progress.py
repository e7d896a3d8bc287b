"""What people see of a run: a bar on a terminal, lines now and then in a log."""

import io
import sys

import pytest

from pathology.cohort import progress as progresses
from pathology.cohort.events import Counted, Ended, Lost, Started
from pathology.cohort.progress import Progress, duration
from pathology.cohort.tally import Tally


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Run:
    """A run of ten slides, ten seconds each, on two workers, by a clock of its own."""

    def __init__(self, slides=10, known=()):
        self.now = 0.0
        rows = [{"slide_id": f"s{i}", "path": ""} for i in range(slides)]
        self.tally = Tally(rows, known, lambda: self.now)
        self.progress = Progress("features", self.tally)

    def pair(self, first, result="done"):
        for i in (first, first + 1):
            self.tally.take(Started(i, f"w{i % 2}"))
        self.now += 10
        for i in (first, first + 1):
            self.tally.take(Counted(i, f"w{i % 2}", 500, 0.3))
            self.tally.take(Ended(i, f"w{i % 2}", result, 10.0))


def test_a_terminal_has_one_bar_and_lines_above_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run = Run(known=["s9"])
    run.progress.show()
    assert "0/10 [00:00, ? left]" in terminal.getvalue()
    run.pair(0)
    run.pair(2, ValueError("no"))
    run.tally.take(Started(4, "w0"))
    run.tally.take(Lost(4, "w0", "killed", 1))
    run.tally.take(Started(4, "w2", 2))
    run.progress.say("s0: 500 tiles")
    assert capsys.readouterr().out == "s0: 500 tiles\n"
    run.progress.show()
    shown = terminal.getvalue().rpartition("\r")[2]
    assert "features:  40%|" in shown
    # Five left that are not known to be done, ten seconds each, on two workers.
    assert "4/10 [00:00, 0:25 left, 100 tiles/s, model waits 3 %, 2 failed, 1 worker lost," in shown
    assert shown.rstrip().endswith("2 workers]")
    run.progress.close()
    assert terminal.getvalue().endswith("\n")


def test_a_log_gets_a_line_for_every_tenth_but_not_for_every_slide(monkeypatch, capsys):
    times = [0.0]
    monkeypatch.setattr(progresses.time, "monotonic", lambda: times[0])
    run = Run(slides=40)
    said = []
    for second, first in enumerate(range(0, 38, 2)):
        run.pair(first)
        times[0] += 4 if second < 10 else 0.1
        run.progress.show()
        said += capsys.readouterr().err.splitlines()
    run.pair(38)
    run.progress.close()
    said += capsys.readouterr().err.splitlines()
    counts = [line.split(": ", 1)[1].split(" slides")[0] for line in said]
    # At four seconds a pair every tenth; when all goes quickly nothing until the end.
    assert counts == ["4 of 40", "8 of 40", "12 of 40", "16 of 40", "20 of 40", "40 of 40"]
    assert said[0][2] == said[0][5] == ":"  # what time it is
    assert said[0].endswith("3:00 left, 100 tiles/s, model waits 3 %, 2 workers")
    assert said[-1].endswith("(100 %), in 3:20, 100 tiles/s, model waits 3 %, 2 workers")
    assert "\r" not in "".join(said)


def test_a_log_gets_a_line_a_minute_while_nothing_ends(monkeypatch, capsys):
    times = [0.0]
    monkeypatch.setattr(progresses.time, "monotonic", lambda: times[0])
    run = Run()
    for _ in range(300):
        times[0] += 1
        run.progress.show()
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_nothing_is_said_of_a_single_slide(monkeypatch, capsys):
    for stream in (sys.stderr, Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        run = Run(slides=1)
        run.tally.take(Started(0, "w"))
        run.progress.show()
        run.tally.take(Ended(0, "w", "done", 1.0))
        run.progress.say("done")
        run.progress.close()
        assert capsys.readouterr().out == "done\n"
    assert stream.getvalue() == ""
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0:00"), (187, "3:07"), (3600, "1:00:00"), (43387, "12:03:07"), (266_999, "3 d 02:09")],
)
def test_durations_are_read_at_a_glance(seconds, said):
    assert duration(seconds) == said
