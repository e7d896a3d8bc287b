"""All tests by a metric."""

from collections.abc import Sequence

from pathology.benchmark.report.contests import Contest
from pathology.benchmark.report.numbers import bounds, p_text, signed
from pathology.benchmark.report.tables.columns import head
from pathology.benchmark.report.tables.table import Cell, Table


def contest_table(contests: Sequence[Contest], what: str) -> Table:
    """All contests by a metric, the worst for ours first.

    Differences are of examples' means over seeds; patients are drawn, or change sign, as a whole.
    """
    rows = [
        [
            Cell(c.data), Cell(c.backbone), Cell(c.ours),
            Cell(c.other if c.other_backbone == c.backbone else f"{c.other} on {c.other_backbone}"),
            Cell(signed(c.difference.value), bounds(c.difference, signed)),
            Cell(f"{c.pairs} of {c.examples}"), Cell(p_text(c.p)), Cell(p_text(c.adjusted)),
            Cell(c.verdict, "", c.verdict),
        ]
        for c in sorted(contests, key=lambda one: (one.gain, one.other))
    ]  # fmt: skip
    caption = (
        "Ours minus the other on the same examples, each a mean over seeds; 95 % bootstrap interval"
        " by patient, p-value by changing patients' signs, and after Holm over all rows of one of"
        " ours."
    )
    columns = [
        "data", "network", "ours", "other", "difference", "pairs", "p", "p, Holm", "verdict",
    ]  # fmt: skip
    return Table(f"{head(contests[0].metric)}: {what}", caption, columns, rows, 4)
