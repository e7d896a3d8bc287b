"""Records of slides: as they were written, or refused."""

import json
from dataclasses import fields, replace

import pytest

from pathology.cohort import records
from pathology.cohort.records import Record, StoredFile, now, record_name

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
    files={"s1.h5": StoredFile(12, "cd" * 32)},
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
