"""All metrics of methods, group by group, and parts of the examples apart."""

from collections.abc import Iterator, Sequence

from pathology.benchmark.report.metric import SLIDES, Metric, title
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.study import Study
from pathology.benchmark.report.tables.columns import cells, drawn, head
from pathology.benchmark.report.tables.table import Cell, Table
from pathology.benchmark.study.roles import is_control

GROUPS = {
    "localisation": "Localisation: is the evidence where the mask is",
    "grid": "Grid: mosaics of tiles of several classes",
    "confounder": "Planted confounders: does the map point at the mark",
    "faithfulness": "Faithfulness: does the answer follow the map",
    "idsds": "Faithfulness after learning from tiles with deleted cells",
    "stability": "Robustness: does the map stay where the answer does",
    "worst_case": "Robustness: how far unseen changes can move a map",
    "sanity": "Sanity: does the map depend on what was learnt",
    "folds": "Other patients: are maps of networks that learnt from others alike",
    "ledger": "Ledger: who owns the logit",
    SLIDES: "Slides",
    "asked_for_only": "Computed because it was asked for, not to be read by",
    "cost": "Cost of a map",
}


def group_tables(study: Study) -> dict[str, list[Table]]:
    """All metrics of methods by group, a table per tile set.

    Means over seeds and examples; intervals by bootstrap over patients, who are drawn as a whole.
    """
    found: dict[str, list[Table]] = {}
    metrics = study.metrics()
    groups = list(dict.fromkeys([*GROUPS, *(one.group for one in metrics)]))
    for group in groups:
        tables = [
            _group_table(study, data, [one for one in metrics if one.group == group])
            for data in study.data
        ]
        tables += list(_strata_tables(study, group))
        kept = [one for one in tables if one is not None]
        if kept:
            found[GROUPS.get(group, title(group))] = kept
    return found


def _group_table(study: Study, data: str, metrics: Sequence[Metric]) -> Table | None:
    rows: list[list[Cell]] = []
    muted = set()
    seen: dict[Metric, list[Panel]] = {}
    for backbone in study.backbones.index:
        panels = {m: p for m in metrics if (p := study.panel(data, backbone, m)) is not None}
        for metric, panel in panels.items():
            seen.setdefault(metric, []).append(panel)
        names = [n for n in study.methods if any(n in p.methods for p in panels.values())]
        columns = {metric: cells(panel) for metric, panel in panels.items()}
        for name in names:
            if is_control(name):
                muted.add(len(rows))
            values = [columns[m].get(name, Cell("")) if m in columns else Cell("") for m in metrics]
            rows.append([Cell(str(backbone)), Cell(name), *values])
    if not rows:
        return None
    kept = [i for i, metric in enumerate(metrics) if metric in seen]
    caption = f"Means over seeds; {drawn(p for one in seen.values() for p in one)}. 95 % intervals."
    return Table(
        data or "all", caption, ["network", "method", *(head(metrics[i]) for i in kept)],
        [[*row[:2], *(row[2 + i] for i in kept)] for row in rows], 2, frozenset(muted),
    )  # fmt: skip


def _strata_tables(study: Study, group: str) -> Iterator[Table]:
    """Parts of the examples apart, a table per tile set and metric, a column per part."""
    rows = study.of_methods
    rows = rows[(rows["group"] == group) & (rows["stratum"] != "")]
    about = rows[["data", "metric", "unit", "better"]].drop_duplicates(["data", "metric"])
    for data, name, unit, better in about.itertuples(index=False, name=None):
        metric = Metric(group, name, unit, better)
        here = rows[(rows["data"] == data) & (rows["metric"] == name)]
        strata = list(dict.fromkeys(here["stratum"]))
        table: list[list[Cell]] = []
        muted: set[int] = set()
        seen: list[Panel] = []
        for backbone in dict.fromkeys(here["backbone"]):
            panels = [study.panel(data, backbone, metric, one) for one in strata]
            seen += [one for one in panels if one is not None]
            columns = [{} if one is None else cells(one) for one in panels]
            for method in study.methods:
                values = [column.get(method, Cell("")) for column in columns]
                if any(one.text for one in values):
                    if is_control(method):
                        muted.add(len(table))
                    table.append([Cell(str(backbone)), Cell(method), *values])
        if table:
            caption = f"A column per part of the examples. Means over seeds; {drawn(seen)}."
            yield Table(
                f"{head(metric)}, by stratum, {data}", caption, ["network", "method", *strata],
                table, 2, frozenset(muted),
            )  # fmt: skip
