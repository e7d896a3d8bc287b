"""All tests by a metric."""

from collections.abc import Sequence

from pathology.benchmark.report.contests import Contest
from pathology.benchmark.report.numbers import bounds, p_text, signed
from pathology.benchmark.report.tables.columns import head
from pathology.benchmark.report.tables.table import Cell, Table


def contest_table(contests: Sequence[Contest], what: str) -> Table:
    """All contests by a metric, the worst for ours first; without tests where there is one value.

    Differences are of examples' means over seeds; patients are drawn, or change sign, as a whole.
    """
    columns = ["data", "network", "ours", "other", "difference"]
    is_tested = any(one.pairs for one in contests)
    rows = []
    for c in sorted(contests, key=lambda one: (one.gain, one.other)):
        other = c.other if c.other_backbone == c.backbone else f"{c.other} on {c.other_backbone}"
        row = [
            *map(Cell, (c.data, c.backbone, c.ours, other)),
            Cell(signed(c.difference.value), bounds(c.difference, signed)),
        ]
        if is_tested:
            row += map(Cell, (f"{c.pairs} of {c.examples}", p_text(c.p), p_text(c.adjusted)))
            row.append(Cell(c.verdict, "", c.verdict))
        rows.append(row)
    caption = "Ours minus the other, of all examples together: one value per network, so no test."
    if is_tested:
        columns += ["pairs", "p", "p, Holm", "verdict"]
        caption = (
            "Ours minus the other on the same examples, each a mean over seeds; 95 % bootstrap"
            " interval by patient, p-value by changing patients' signs, and after Holm over all"
            " rows of one of ours."
        )
    return Table(f"{head(contests[0].metric)}: {what}", caption, columns, rows, 4)
