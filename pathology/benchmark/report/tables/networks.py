"""Networks by what they do and cost, and B-cos ones less their twins."""

import math
from collections.abc import Iterator, Sequence

from pathology.benchmark.report.contests import LEVEL
from pathology.benchmark.report.differences import Gap, backbone_difference
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.numbers import MINUS, bounds, p_text, signed
from pathology.benchmark.report.study import Study
from pathology.benchmark.report.tables.columns import cells, drawn, head
from pathology.benchmark.report.tables.table import Cell, Table


def backbone_tables(study: Study) -> list[Table]:
    """Networks by what they do and cost, a table per tile set; then pairs' differences.

    Means over seeds. Intervals are those that came with the values, the outermost ends over seeds,
    or by bootstrap over patients, who are drawn as a whole.
    """
    found = []
    for data in study.data:
        metrics = [
            m
            for m in study.backbone_metrics
            if any(study.panel(data, b, m) is not None for b in study.backbones.index)
        ]
        rows = []
        for backbone, about in study.backbones.iterrows():
            panels = [study.panel(data, str(backbone), m) for m in metrics]
            if any(p is not None for p in panels):
                kind = f"{about['family']} {about['architecture']}".strip()
                values = [Cell("") if p is None else cells(p).get("", Cell("")) for p in panels]
                rows.append([Cell(str(backbone)), Cell(kind), *values])
        if rows:
            caption = (
                "Means over seeds; intervals as they came with the values, the outermost ends over"
                " seeds, or by bootstrap by patient where there are values by example."
            )
            columns = ["network", "kind", *map(head, metrics)]
            found.append(Table(f"Networks on {data}", caption, columns, rows, 2))
            pairs = _pair_table(study, data, metrics)
            if pairs is not None:
                found.append(pairs)
    return found + list(_network_strata(study))


def _network_strata(study: Study) -> Iterator[Table]:
    """What networks do on parts of the examples, a table per tile set and metric."""
    rows = study.values
    rows = rows[(rows["method"] == "") & (rows["stratum"] != "")]
    keys = ["data", "group", "metric", "unit", "better"]
    for data, group, name, unit, better in rows[keys].drop_duplicates().itertuples(index=False):
        metric = Metric(group, name, unit, better)
        here = rows[(rows["data"] == data) & (rows["group"] == group) & (rows["metric"] == name)]
        strata = list(dict.fromkeys(here["stratum"]))
        table, seen = [], []
        for backbone in dict.fromkeys(here["backbone"]):
            panels = [study.panel(str(data), str(backbone), metric, one) for one in strata]
            seen += [one for one in panels if one is not None]
            values = [Cell("") if one is None else cells(one).get("", Cell("")) for one in panels]
            table.append([Cell(str(backbone)), *values])
        caption = f"A column per part of the examples. Means over seeds; {drawn(seen)}."
        yield Table(f"{head(metric)}, {data}", caption, ["network", *strata], table)


def _pair_table(study: Study, data: str, metrics: Sequence[Metric]) -> Table | None:
    rows = []
    for backbone in study.backbones.index:
        if not study.is_ours(str(backbone)):
            continue
        for twin in study.twins(str(backbone)):
            values = [backbone_difference(study, data, str(backbone), twin, m) for m in metrics]
            if any(one is not None for one in values):
                rows.append([Cell(f"{backbone} {MINUS} {twin}"), *map(_difference_cell, values)])
    if not rows:
        return None
    caption = (
        "B-cos minus twin, means over seeds. With values by example: 95 % interval and sign-flip"
        " p-value by patient, each patient drawn as a whole, not corrected. Else: the range of"
        " differences between trainings of the same seed, which is no interval."
    )
    return Table(f"B-cos minus twin on {data}", caption, ["pair", *map(head, metrics)], rows)


def _difference_cell(gap: Gap | None) -> Cell:
    if gap is None:
        return Cell("")
    small = bounds(gap.estimate, signed)
    kind = ""
    if not math.isnan(gap.p):
        small += f"; p {p_text(gap.p)}"
        if gap.p <= LEVEL and gap.metric.sign:
            kind = "better" if gap.metric.sign * gap.estimate.value > 0 else "worse"
    return Cell(signed(gap.estimate.value), small, kind)
