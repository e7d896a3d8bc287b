"""Workers end with their run, however it ends; SIGTERM ends it as Ctrl-C does."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pathology.cohort.stopping import sigterm_as_interrupt


@pytest.fixture
def told():
    """What a handler that was there before is told."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_sigterm_interrupts_once_and_what_was_before_comes_back(told):
    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # does not disturb the tidying up

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        work()
    assert told == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert told == [signal.SIGTERM]


def test_in_another_thread_nothing_changes(told):
    def work():
        with sigterm_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [signal.SIGTERM]


SCRIPT = """
import sys
from pathlib import Path
import pandas as pd
from pathology.cohort.choice import make_engine
from pathology.cohort.each_slide import each_slide
from tests.pathology.cohort.trouble import Trouble
if __name__ == "__main__":
    names = ["wait 1", "wait 2", "a"]
    table = pd.DataFrame({"slide_id": names, "path": names})
    try:
        each_slide(table, Trouble(Path(sys.argv[1])), "working", engine=make_engine(workers=2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("sent", "to_all", "code"),
    [
        (signal.SIGINT, True, 130),  # Ctrl-C on a terminal goes to the whole group
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 130),  # a batch system whose time is up
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
)
def test_workers_end_with_their_run(tmp_path, sent, to_all, code):
    (tmp_path / "run.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while len(workers := [int(p.name.split(".")[1]) for p in tmp_path.glob("*.waits")]) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if to_all:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in err
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
