"""One piece of work for every slide of a cohort: what becomes of it, and of the run."""

import csv
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pathology.cohort.engine import Engine, Needs
from pathology.cohort.events import Ended, Event, Row, Work
from pathology.cohort.failures import message
from pathology.cohort.here import Here
from pathology.cohort.stopping import sigterm_as_interrupt
from pathology.cohort.telling import Telling
from pathology.errors import OutputError
from pathology.outputs import complete_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


class Told(AbstractContextManager[Any], Protocol):
    """Whoever is told about a run, such as :class:`~pathology.cohort.telling.Telling`."""

    def told(self, event: Event) -> None:
        """One event after the other."""


def each_slide(
    table: "pd.DataFrame",
    work: Work,
    what: str,
    *,
    engine: Engine | None = None,
    needs: Needs = Needs(),  # noqa: B008 -- it cannot be changed
    keep_going: bool = False,
    failures: Path | None = None,
    listed_in: str | None = None,
    telling: Told | None = None,
) -> int:
    """Do ``work`` for every slide, with progress; returns the exit code.

    Args:
        table: rows with ``slide_id`` and ``path``, see
            :func:`~pathology.data.slide_list.list_slides`.
        work: takes a row, returns one line about what it did. It writes its own results, complete
            or not at all, and skips what is there, so that a run that was stopped can be run again.
        what: shown beside the progress.
        engine: what works, see :func:`~pathology.cohort.choice.make_engine`; this process when
            omitted.
        needs: what each of its workers needs.
        keep_going: list slides that fail and exit with 3, rather than stop at the first. An output
            that cannot be written always stops: it fails every slide alike.
        failures: table of the slides that failed (CSV), kept up to date while the run goes on;
            there is none when none failed.
        listed_in: where people find that table, if it is moved from there.
        telling: is told all that happens, and tells it; closed when the run ends, however it ends.
            Progress and lines alone are told when it is omitted.

    Raises:
        SlideError: worker after worker died at a slide (without ``keep_going``).
        KeyboardInterrupt: Ctrl-C, or SIGTERM; workers are stopped first.
    """
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    failed: dict[int, Exception] = {}
    _list_failures(failures, rows, failed)
    with (
        sigterm_as_interrupt(),
        telling or Telling(None, "", rows, what) as telling,
        closing((engine or Here()).run(rows, work, needs)) as events,
    ):
        for event in events:
            telling.told(event)
            if not isinstance(event, Ended) or isinstance(event.result, str):
                continue
            if not keep_going or isinstance(event.result, OutputError):
                raise event.result
            failed[event.index] = event.result
            _list_failures(failures, rows, failed)
    if not failed:
        return 0
    print(f"{len(failed)} of {len(rows)} slides failed:")
    for index in sorted(failed):
        print(f"  {rows[index]['slide_id']}: {message(failed[index])}")
    if failures is not None:
        print(f"listed in {listed_in or failures}")
    return 3


def _list_failures(path: Path | None, rows: "Sequence[Row]", failed: dict[int, Exception]) -> None:
    if path is None:
        return
    if not failed:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be replaced: {error.strerror}") from error
        return
    with complete_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("slide_id", "path", "error", "message"))
        for index in sorted(failed):
            names = (rows[index]["slide_id"], rows[index]["path"], type(failed[index]).__name__)
            writer.writerow((*names, message(failed[index])))
