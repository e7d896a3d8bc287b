"""Tables of the page, as text: what each says is in its caption, with what its intervals draw."""

from pathology.benchmark.report.tables.columns import drawn
from pathology.benchmark.report.tables.contests import contest_table
from pathology.benchmark.report.tables.groups import GROUPS, group_tables
from pathology.benchmark.report.tables.headline import headline_tables
from pathology.benchmark.report.tables.missing import failed_table, refused_table, undefined_table
from pathology.benchmark.report.tables.networks import backbone_tables
from pathology.benchmark.report.tables.ranks import agreement_table, alarm_table, stability_table
from pathology.benchmark.report.tables.scoreboard import scoreboard
from pathology.benchmark.report.tables.table import Cell, Table, markdown

__all__ = [
    "GROUPS",
    "Cell",
    "Table",
    "agreement_table",
    "alarm_table",
    "backbone_tables",
    "contest_table",
    "drawn",
    "failed_table",
    "group_tables",
    "headline_tables",
    "markdown",
    "refused_table",
    "scoreboard",
    "stability_table",
    "undefined_table",
]
