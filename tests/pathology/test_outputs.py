"""Drafts of processes that have ended are removed; those of the living and of others are not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pathology.outputs import remove_drafts


def draft(folder, name, process):
    path = folder / f".{name}.{process}.part"
    path.touch()
    return path


def test_drafts_of_the_living_are_left_alone(tmp_path):
    mine = draft(tmp_path, "a.png", os.getpid())
    strange = draft(tmp_path, "b.png", 999_999_999)
    gone = draft(tmp_path, "a.png", 999_999_999)
    remove_drafts(tmp_path, ["a.png"])
    assert (mine.exists(), strange.exists(), gone.exists()) == (True, True, False)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see it in")
def test_a_process_that_ended_and_was_not_waited_for_is_gone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    left = draft(tmp_path, "a.png", process.pid)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    remove_drafts(tmp_path, ["a.png"])
    assert not left.exists()
    process.wait()
