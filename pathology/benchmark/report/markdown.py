"""What the page says first, as Markdown for the docs."""

import pandas as pd

from pathology.benchmark.report import tables
from pathology.benchmark.report.findings import Findings
from pathology.benchmark.report.reading import reading
from pathology.benchmark.report.results import find_study


def table_markdown(results: pd.DataFrame, study: str) -> str:
    """The first tables of a study for the docs: ours against the rest, then networks and methods.

    Args:
        results: as of :func:`write_page`.
        study: its name.

    Raises:
        ValueError: there is no such study.
    """
    found = find_study(results, study)
    board = tables.scoreboard(Findings(found))
    shown = [] if board is None else [board]
    shown += [*tables.backbone_tables(found), *tables.headline_tables(found)]
    shown += tables.headline_tables(found, is_slides=True)
    return "\n".join(f"**{one.title}**\n\n{tables.markdown(one)}" for one in shown)


def reading_markdown(results: pd.DataFrame, study: str) -> str:
    """What the page says first, as a list for the docs.

    Raises:
        ValueError: there is no such study.
    """
    return "\n".join(f"- {one.text}" for one in reading(Findings(find_study(results, study))))
