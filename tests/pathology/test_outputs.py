"""Outputs are complete or not there; what the dead left is removed, the living keep theirs."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pathology.errors import OutputError
from pathology.outputs import complete_folder, remove_drafts


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


def test_a_folder_is_complete_or_not_there(tmp_path):
    folder = tmp_path / "a"
    with suppress(KeyboardInterrupt), complete_folder(folder) as scratch:
        (scratch / "file").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):  # the second replaces the first
        with complete_folder(folder) as scratch:
            (scratch / "file").write_text(text)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (folder / "file").read_text() == "second"


def test_what_the_dead_left_of_a_folder_is_removed(tmp_path):
    left = [tmp_path / f".a.{name}.part" for name in ("999999999", "former.999999999")]
    others = [tmp_path / ".b.999999999.part", tmp_path / f".a.{os.getppid()}.part"]
    for path in left + others:
        path.mkdir()
    with complete_folder(tmp_path / "a"):
        assert [path.exists() for path in left + others] == [False, False, True, True]


WRITER = """
import sys
from pathlib import Path
from pathology.outputs import complete_folder
for i in range(200):
    with complete_folder(Path(sys.argv[1])) as scratch:
        for name in "ab":
            (scratch / name).write_text(sys.argv[2])
"""


def test_two_processes_may_write_one_folder(tmp_path):
    """Each has its own scratch folder; whoever ends last stays, whole."""
    folder = tmp_path / "out"
    command = [sys.executable, "-c", WRITER, str(folder)]
    writers = [subprocess.Popen([*command, text]) for text in ("x", "y")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert len({(folder / name).read_text() for name in "ab"}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_under_a_file_is_said(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot be written"),
        complete_folder(tmp_path / "file" / "a"),
    ):
        pass


def test_a_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputError, match="a file of that name"), complete_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
