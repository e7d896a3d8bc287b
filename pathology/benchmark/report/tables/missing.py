"""What there is no value of, and why."""

from collections.abc import Iterable

import pandas as pd

from pathology.benchmark.report.metric import title
from pathology.benchmark.report.numbers import NONE
from pathology.benchmark.report.study import Study
from pathology.benchmark.report.tables.table import Cell, Table


def undefined_table(study: Study) -> Table | None:
    """Values that are not defined, by what they are of and reason; nothing is drawn."""
    values = study.values
    lost = values["value"].isna()
    if not lost.any():
        return None
    # Of all methods, told once; else by method, metrics of one reason and number together.
    rows = [
        [
            Cell(_metrics(part["metric"])), Cell("all"), Cell(f"all of {data or 'this study'}"),
            _reason(note),
        ]
        for (data, _, note), part in values[study.is_lacking].groupby(
            ["data", "group", "note"], sort=False
        )
    ]  # fmt: skip
    some = values[~study.is_lacking]
    some = some.assign(of=some.groupby(["metric", "method"], sort=False)["value"].transform("size"))
    some = some[some["value"].isna()]
    counted = some.groupby(["method", "metric", "note", "of"], sort=False).size().reset_index()
    counted = counted.rename(columns={0: "size"}).sort_values(
        "size", ascending=False, kind="stable"
    )
    rows += [
        [
            Cell(_metrics(part["metric"])), Cell(str(method) or "network"), Cell(f"{size} of {of}"),
            _reason(note),
        ]
        for (method, note, size, of), part in counted.groupby(
            ["method", "note", "size", "of"], sort=False
        )
    ]  # fmt: skip
    return Table(
        "Not defined", "Values left out of means and tests, over all networks, sets and seeds;"
        " the count is of each metric.",
        ["metrics", "method", "values", "reason"], rows, 2,
    )  # fmt: skip


def _metrics(names: Iterable[str]) -> str:
    return ", ".join(title(one) for one in dict.fromkeys(names))


def _reason(note: object) -> Cell:
    return Cell(str(note) or "no reason given", "", "" if note else "warn")


def refused_table(study: Study) -> Table | None:
    """Methods that do not fit a network, with the reason; nothing is drawn."""
    rows = study.rows[study.is_refused]
    return _events(rows, "Refused", "Methods that do not fit a network, and why.")


def failed_table(study: Study) -> Table | None:
    """What ended with an error; nothing is drawn."""
    rows = study.rows[study.is_failed]
    return _events(rows, "Failed", "Errors: these numbers are missing, not zero.")


def _events(rows: pd.DataFrame, heading: str, caption: str) -> Table | None:
    if rows.empty:
        return None
    table = []
    for (method, note), part in rows.groupby(["method", "note"], sort=False):
        where = part.drop_duplicates(["backbone", "data", "seed"])
        names = ", ".join(dict.fromkeys(one for one in where["backbone"] if one))
        places = f"{', '.join(dict.fromkeys(where['data']))}; seeds {_seeds(where['seed'])}"
        table.append(
            [Cell(str(method) or NONE), Cell(names or NONE), Cell(places), Cell(str(note))]
        )
    return Table(heading, caption, ["method", "networks", "where", "reason"], table, 4)


def _seeds(seeds: "pd.Series[int]") -> str:
    return ", ".join(map(str, sorted(set(seeds))))
