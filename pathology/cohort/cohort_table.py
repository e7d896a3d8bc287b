"""What became of every slide of a cohort, as a table for people: ``OUT/cohort.csv``.

Columns: ``slide_id, path, state`` (``done``, ``failed``, ``waiting``), ``message``, ``error`` (the
class of what went wrong), ``seconds`` of the last try, ``tries``, ``worker``, ``run``, and
``finished_at`` (UTC). It is made of the records, by every run when it ends: runs side by side, and
parts of a cohort, all write what all of them know.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from pathology.cohort.events import Row
from pathology.cohort.records import Record

COHORT_TABLE = "cohort.csv"
COLUMNS = (
    "slide_id", "path", "state", "message", "error", "seconds", "tries", "worker", "run",
    "finished_at",
)  # fmt: skip


def cohort_table(rows: Sequence[Row], records: Mapping[str, Record]) -> str:
    """The table as CSV.

    Args:
        rows: slides of the cohort, in its order.
        records: by ``slide_id``; those of no row, as of an earlier table, come last.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    paths = {str(row["slide_id"]): str(row["path"]) for row in rows}
    for name in [*paths, *sorted(records.keys() - paths.keys())]:
        record = records.get(name)
        if record is None:
            writer.writerow((name, paths[name], "waiting", *[""] * (len(COLUMNS) - 3)))
            continue
        writer.writerow(
            (
                name,
                paths.get(name, record.path),
                record.state,
                " ".join(record.message.split()),
                record.error,
                round(record.seconds, 3),
                record.tries,
                record.worker,
                record.run,
                record.finished_at,
            )
        )
    return file.getvalue()
