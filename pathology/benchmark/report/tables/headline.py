"""Methods by headline metrics, those marked that are ahead."""

from pathology.benchmark.report.contests import LEVEL
from pathology.benchmark.report.metric import SLIDES, Metric
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.study import Study
from pathology.benchmark.report.tables.columns import MARKS, cells, drawn, head
from pathology.benchmark.report.tables.table import Cell, Table
from pathology.benchmark.study.roles import is_control


def headline_tables(study: Study, is_slides: bool = False) -> list[Table]:
    """Methods by headline metrics, a table per set and network (or slides' aggregator).

    Means over seeds and examples; intervals by bootstrap over patients, who are drawn as a whole.

    Args:
        study: whose.
        is_slides: whether of slides or of tiles.
    """
    found = []
    metrics = [m for m in study.metrics(headline=True) if (m.group == SLIDES) == is_slides]
    for data in study.data:
        for backbone in study.backbones.index:
            panels = {m: p for m in metrics if (p := study.panel(data, backbone, m)) is not None}
            if panels:
                found.append(_headline_table(study, data, str(backbone), panels))
    return found


def _headline_table(study: Study, data: str, backbone: str, panels: dict[Metric, Panel]) -> Table:
    names = [n for n in study.methods if any(n in p.methods for p in panels.values())]
    columns = [cells(panel, is_marked=True) for panel in panels.values()]
    rows = [[Cell(n), *(column.get(n, Cell("")) for column in columns)] for n in names]
    seeds = len({seed for p in panels.values() for seed in p.seeds})
    caption = (
        f"Means over {seeds} {'seed' if seeds == 1 else 'seeds'}; {drawn(panels.values())}. 95 %"
        f" intervals. {MARKS['best']}: ahead of every other method by sign-flip tests by patient,"
        f" corrected by Holm within the column at {LEVEL:g}; {MARKS['top']}: the best mean and all"
        " that are not told apart from it. Metrics of all examples together are not tested."
        " Controls are grey and take no part."
    )
    muted = frozenset(i for i, n in enumerate(names) if is_control(n))
    return Table(
        f"{backbone} on {data}", caption, ["method", *map(head, panels)], rows, muted=muted
    )
