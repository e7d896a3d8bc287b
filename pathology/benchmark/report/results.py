"""A table of results as its studies, checked."""

import pandas as pd

from pathology.benchmark.report.study import Study
from pathology.benchmark.study.rows import COLUMNS


def read_studies(results: pd.DataFrame) -> list[Study]:
    """A table as its studies, in order.

    Args:
        results: columns :data:`~pathology.benchmark.study.rows.COLUMNS`; text that is missing is
            empty.

    Raises:
        ValueError: columns are missing, a metric has two better sides, or a value stands twice.
    """
    missing = [name for name in COLUMNS if name not in results]
    if missing:
        raise ValueError(f"results lack columns {', '.join(missing)}; see study/rows.py")
    rows = results[list(COLUMNS)].copy()
    for name, kind in COLUMNS.items():
        if kind == "string":
            rows[name] = rows[name].astype("object").where(rows[name].notna(), "").astype(str)
        elif kind == "float64":
            rows[name] = rows[name].astype("float64")
    rows["seed"] = rows["seed"].fillna(0).astype("int64")
    rows["headline"] = rows["headline"].fillna(False).astype(bool)
    studies = [Study(str(name), part) for name, part in rows.groupby("study", sort=False)]
    for study in studies:
        _check(study)
    return studies


def find_study(results: pd.DataFrame, name: str) -> Study:
    """One study of a table.

    Raises:
        ValueError: there is no such study.
    """
    studies = {one.name: one for one in read_studies(results)}
    if name not in studies:
        raise ValueError(f"no study {name!r} in the results, which have {', '.join(studies)}")
    return studies[name]


def _check(study: Study) -> None:
    sides = study.values.groupby(["group", "metric"])["better"].nunique()
    if (sides > 1).any():
        group, name = sides.index[sides > 1][0]
        raise ValueError(f"{study.name}: {group}/{name} is better both ways; one side is wanted")
    keys = [
        "data", "backbone", "seed", "method", "group", "metric", "example", "stratum",
    ]  # fmt: skip
    twice = study.values.duplicated(keys)
    if twice.any():
        first = study.values.loc[twice, keys].iloc[0]
        where = ", ".join(f"{key} {first[key]}" for key in keys if first[key] != "")
        raise ValueError(f"{study.name}: a value stands twice: {where}")
