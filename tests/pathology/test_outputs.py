"""Outputs are complete or not there; what the dead left is removed, the living keep theirs."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pathology.errors import OutputError
from pathology.outputs import (
    ABANDONED_S,
    complete_file,
    complete_folder,
    draft_path,
    drafted,
    remove_drafts,
    remove_scratch,
    this_machine,
)

NOBODY = 999_999_999  # no process has such a number


def draft(folder, name, process):
    path = draft_path(folder / name, process)
    path.touch()
    return path


@pytest.fixture
def elsewhere(monkeypatch):
    """Makes what follows happen on a machine of another name."""

    def move(name="node7.cluster.example"):
        monkeypatch.setattr("platform.node", lambda: name)

    return move


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_drafts_of_the_living_are_left_alone(tmp_path):
    mine = draft(tmp_path, "a.png", os.getpid())
    strange = draft(tmp_path, "b.png", NOBODY)
    gone = draft(tmp_path, "a.png", NOBODY)
    remove_drafts(tmp_path, ["a.png"])
    assert (mine.exists(), strange.exists(), gone.exists()) == (True, True, False)


def test_another_machines_draft_is_left_alone_for_a_day(tmp_path, elsewhere):
    """Its process may well be alive, though there is none of that number here."""
    elsewhere()
    fresh, old = draft(tmp_path, "fresh.png", NOBODY), draft(tmp_path, "old.png", NOBODY)
    age(fresh, ABANDONED_S - 600)
    age(old, ABANDONED_S + 600)
    elsewhere("node8")
    gone = draft(tmp_path, "fresh.png", NOBODY)
    remove_drafts(tmp_path, ["fresh.png", "old.png"])
    assert [path.exists() for path in (fresh, old, gone)] == [True, False, False]


def test_a_folder_on_another_machine_is_as_old_as_what_was_last_written_in_it(tmp_path, elsewhere):
    elsewhere()
    drafts = [draft_path(tmp_path / "a", process) for process in (NOBODY, NOBODY + 1)]
    for path in drafts:
        (path / "stitch").mkdir(parents=True)
        (path / "stitch" / "band").touch()
        for each in (path / "stitch", path):
            age(each, ABANDONED_S + 600)
    age(drafts[1] / "stitch" / "band", ABANDONED_S + 600)
    elsewhere("node8")
    remove_scratch(tmp_path / "a")
    assert [path.exists() for path in drafts] == [True, False]


@pytest.mark.parametrize(
    "node", ["", "node7", "node7.cluster.example", "Kn\u00f6tchen 7/\u00e4", "x" * 60]
)
def test_a_draft_tells_its_name_on_every_machine(tmp_path, elsewhere, node):
    elsewhere(node)
    assert "." not in this_machine()
    with complete_file(tmp_path / "a.b-1.tar.gz") as path:
        path.touch()
        assert drafted(path) == "a.b-1.tar.gz"
        assert [drafted(each) for each in tmp_path.iterdir()] == ["a.b-1.tar.gz"]
    assert drafted(tmp_path / "a.b-1.tar.gz") is None


def test_long_names_of_machines_stay_different(elsewhere):
    names = set()
    for node in ("x" * 60, "x" * 61):
        elsewhere(node)
        names.add(this_machine())
    assert len(names) == 2


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="no name spaces")
def test_containers_with_their_hosts_name_are_told_apart(elsewhere, monkeypatch):
    elsewhere("node7")
    here = this_machine()
    monkeypatch.setattr(Path, "readlink", lambda _: Path("pid:[4026539999]"))
    assert this_machine() == "node7_4026539999" != here


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
    left = [draft_path(tmp_path / name, NOBODY) for name in ("a", "a.former")]
    others = [draft_path(tmp_path / "b", NOBODY), draft_path(tmp_path / "a", os.getppid())]
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
