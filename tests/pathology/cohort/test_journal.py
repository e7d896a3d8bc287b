"""The journal of a run: every line there when it was written, and whole."""

import json

import pytest

from pathology.cohort import journal as journals
from pathology.cohort.journal import Journal, run_name
from pathology.errors import OutputError
from pathology.store.folder import FolderStore
from tests.pathology.cohort.made_store import Bucket

RUN = ".cohort/tile/runs/r1.jsonl"


def lines(folder):
    return [json.loads(line) for line in (folder / RUN).read_text().splitlines()]


def test_a_line_is_there_when_it_was_written(tmp_path):
    journal = Journal(FolderStore(tmp_path), "tile", "r1")
    journal.write("started", slide="s1\n", tries=1)
    (line,) = lines(tmp_path)
    assert {**line, "time": ""} == {"time": "", "event": "started", "slide": "s1\n", "tries": 1}
    assert line["time"].endswith("Z")
    journal.write("done", slide="caf\udce9")  # a name of a file that is no text
    assert lines(tmp_path)[1]["slide"] == "caf\udce9"
    journal.close()


def test_a_bucket_has_it_a_minute_later_and_all_of_it_at_the_end(tmp_path, monkeypatch):
    journal = Journal(Bucket(tmp_path), "tile", "r1")
    journal.write("began")
    journal.upload()
    assert not (tmp_path / RUN).exists()
    monkeypatch.setattr(journals, "UPLOAD_S", -1.0)
    journal.upload()
    assert len(lines(tmp_path)) == 1
    journal.write("started")  # goes behind what was read to be sent
    journal.write("done")
    assert len(lines(tmp_path)) == 1
    journal.close()
    assert [line["event"] for line in lines(tmp_path)] == ["began", "started", "done"]


def test_where_it_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / ".cohort").write_text("in the way")
    with pytest.raises(OutputError, match=r"r1\.jsonl: cannot be written: \S") as caught:
        Journal(FolderStore(tmp_path), "tile", "r1")
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_is_said_in_one_line(tmp_path):
    (tmp_path / RUN).parent.mkdir(parents=True)
    (tmp_path / RUN).symlink_to("/dev/full")
    journal = Journal(FolderStore(tmp_path), "tile", "r1")
    for again in (lambda: journal.write("done"), journal.close):
        with pytest.raises(OutputError, match=r"r1\.jsonl: cannot be written: No space left"):
            again()


def test_runs_have_names_of_their_own_that_sort_by_time():
    names = {run_name() for _ in range(100)}
    assert len(names) == 100
    assert all(name[:16] >= "20260101T000000Z" and "/" not in name for name in names)
