"""Agreement of metrics and of seeds, and controls that lead."""

import math
from collections.abc import Sequence

from pathology.benchmark.report.agreement import Agreement, SeedStability
from pathology.benchmark.report.alarms import Alarm
from pathology.benchmark.report.numbers import NONE
from pathology.benchmark.report.tables.table import Cell, Table


def agreement_table(found: Agreement) -> Table:
    """Kendall's tau between metrics; nothing is drawn, each network on a tile set counts once."""
    names = [one.title for one in found.metrics]
    rows = [
        [
            Cell(name),
            *(
                Cell(
                    NONE if math.isnan(t) else f"{t:.2f}", str(n) if i != j else "", shade=float(t)
                )
                for j, (t, n) in enumerate(zip(taus, counts, strict=True))
            ),
        ]
        for i, (name, taus, counts) in enumerate(zip(names, found.tau, found.counts, strict=True))
    ]
    caption = (
        "Kendall's tau-b of the order of methods (best side up, controls left out), within each"
        " network and tile set, then averaged over as many as the small number says. 1 is the same"
        " order, 0 none in common, -1 the opposite."
    )
    return Table("Do metrics rank methods alike?", caption, ["", *names], rows)


def stability_table(found: Sequence[SeedStability]) -> Table:
    """Kendall's tau between seeds; each pair of trainings of a network counts once."""
    rows = [
        [
            Cell(one.metric.title),
            *map(Cell, (f"{one.tau:.2f}", f"{one.lowest:.2f}", f"{one.count}")),
        ]
        for one in found
    ]
    caption = (
        "Kendall's tau-b of the order of methods between two trainings of the same network on the"
        " same tiles, controls left out."
    )
    columns = ["metric", "mean tau", "lowest", "pairs of trainings"]
    return Table("Does another training rank methods alike?", caption, columns, rows)


def alarm_table(found: Sequence[Alarm]) -> Table:
    """Where a control does what it must not; ranks are of means, nothing is drawn."""
    rows = [
        [
            Cell(one.metric.title), Cell(one.data), Cell(one.backbone), Cell(one.control),
            Cell(f"{one.rank} of {one.methods}", "", "warn"),
        ]
        for one in found
    ]  # fmt: skip
    caption = (
        "Rank of the control's mean among the methods: random in the upper half, others first."
    )
    return Table(
        "Controls that should not be there", caption,
        ["metric", "data", "network", "control", "rank"], rows, 4,
    )  # fmt: skip
