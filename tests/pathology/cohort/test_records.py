"""Records of slides: as they were written, or refused."""

import json
from dataclasses import fields, replace

import pytest

from pathology.cohort import records
from pathology.cohort.records import Record, Records, StoredFile, now, record_name
from pathology.store.folder import FolderStore
from tests.pathology.cohort.made_store import Bucket

MADE = Record(
    slide_id="s1",
    path="s3://cohort/s1.svs",
    state="done",
    message="s1: 12 tiles of 0.5 µm",
    seconds=3.25,
    tries=2,
    worker="node3:17",
    run="r1",
    finished_at=now(),
    work="ab" * 8,
    source={"size": 17, "etag": "x"},
    files={"s1.h5": StoredFile(12, "cd" * 32, "7")},
)


def test_a_record_is_read_as_it_was_written():
    assert Record.from_json(MADE.to_json()) == MADE
    failed = replace(MADE, state="failed", error="KeyError", files={}, source={}, work="")
    assert Record.from_json(failed.to_json()) == failed
    assert {f.name for f in fields(Record)} == set(records._TYPES)


def test_a_record_that_was_cut_short_is_refused():
    data = MADE.to_json()
    for length in range(len(data) - 1):  # the last is a line's end
        with pytest.raises(ValueError, match=r"is no JSON|is no record"):
            Record.from_json(data[:length])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"state": "waiting"}, "state is 'waiting'"),
        ({"tries": "2"}, "tries is '2'"),
        ({"tries": True}, "tries is True"),
        ({"files": {"a": {"bytes": 1}}}, "files: 'a' has"),
        ({"files": {"a": {"bytes": "1", "sha256": "x"}}}, "files: 'a' has"),
        ({"files": []}, r"files is \[\]"),
        ({"format": 2}, "is no record of format 1"),
        ({"more": 1}, "other fields than a record: more"),
    ],
)
def test_a_damaged_record_is_refused(changed, said):
    values = {**json.loads(MADE.to_json()), **changed}
    with pytest.raises(ValueError, match=said):
        Record.from_json(json.dumps(values).encode())


def test_a_failure_and_a_success_are_different_files():
    # Also for a slide that is called as the other's file would be.
    names = {
        record_name("tile", name, state)
        for name in ("s", "s.failed")
        for state in ("done", "failed")
    }
    assert len(names) == 4
    assert record_name("tile", "s") == ".cohort/tile/slides/s.json"


@pytest.mark.parametrize("kind", [FolderStore, Bucket])
def test_the_newer_record_of_a_slide_counts(tmp_path, kind):
    kept = Records(kind(tmp_path), "tile")
    times = [f"2026-03-01T12:00:0{second}.000Z" for second in range(3)]
    kept.write(replace(MADE, slide_id="a", finished_at=times[0]))
    kept.write(replace(MADE, slide_id="a", state="failed", finished_at=times[1]))
    kept.write(replace(MADE, slide_id="b", state="failed", finished_at=times[1]))
    kept.write(replace(MADE, slide_id="b", finished_at=times[2]))
    Records(kind(tmp_path), "features").write(replace(MADE, slide_id="c"))
    assert {name: r.state for name, r in kept.all(pytest.fail).items()} == {
        "a": "failed",
        "b": "done",
    }
    # The failure of a took nothing back.
    assert kept.names("done") == kept.names("failed") == {"a", "b"}
    kept.forget_failure("a")
    assert kept.all(pytest.fail)["a"].state == "done"
    kept.forget_failure("a")  # somebody else did


def test_damaged_records_are_as_none_and_named(tmp_path):
    kept = Records(FolderStore(tmp_path), "tile")
    for name in "abc":
        kept.write(replace(MADE, slide_id=name))
    folder = tmp_path / ".cohort" / "tile" / "slides"
    (folder / "a.json").write_bytes((folder / "a.json").read_bytes()[:40])
    (folder / "b.json").write_bytes((folder / "c.json").read_bytes())  # copied by hand
    damaged = {}
    assert list(kept.all(damaged.__setitem__)) == ["c"]
    assert "is no JSON" in damaged.pop(".cohort/tile/slides/a.json")
    assert damaged == {".cohort/tile/slides/b.json": "is of slide 'c', done"}
