"""What became of every slide, as a table."""

import csv
import io

from pathology.cohort.cohort_table import COLUMNS, cohort_table
from pathology.cohort.records import Record

ROWS = [{"slide_id": name, "path": f"/slides/{name}.svs"} for name in ("b", "a", "c")]


def test_every_slide_is_in_it_and_those_of_earlier_tables_too():
    records = {
        "a": Record(
            "a", "s3://other/a.svs", "failed", "no\ntissue, none", "NoTissueError", 1.23456, 2,
            "n:1", "r1", "2026-03-01T12:00:00.000Z",
        ),
        "z": Record("z", "/old/z.svs", "done", "made"),
        "c": Record("c", "/slides/c.svs", "done", "made"),
    }  # fmt: skip
    table = list(csv.DictReader(io.StringIO(cohort_table(ROWS, records))))
    assert tuple(table[0]) == COLUMNS
    assert [(row["slide_id"], row["state"]) for row in table] == [
        ("b", "waiting"),
        ("a", "failed"),
        ("c", "done"),
        ("z", "done"),
    ]
    assert table[1] == {
        "slide_id": "a",
        "path": "/slides/a.svs",
        "state": "failed",
        "message": "no tissue, none",
        "error": "NoTissueError",
        "seconds": "1.235",
        "tries": "2",
        "worker": "n:1",
        "run": "r1",
        "finished_at": "2026-03-01T12:00:00.000Z",
    }
    assert table[3]["path"] == "/old/z.svs"
    assert (table[0]["message"], table[0]["tries"]) == ("", "")
