"""Tables of the page, as text: what each says is in its caption, with what its intervals draw."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pathology.benchmark.report.contests import LEVEL, Contest, Verdict, is_comparable, marks
from pathology.benchmark.report.ranking import (
    Agreement,
    Alarm,
    SeedStability,
)
from pathology.benchmark.report.results import (
    SLIDES,
    Metric,
    Panel,
    Study,
    title,
)
from pathology.benchmark.study.roles import is_control, is_ours, role
from pathology.metrics.bootstrap import Estimate
from pathology.metrics.comparison import group_means, sign_flip_test

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
ARROWS = {"higher": "↑", "lower": "↓"}
NONE, MINUS = "\u2013", "\u2212"
MARKS = {"best": "★", "top": "≈"}


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Args:
        text: the value.
        small: beneath it.
        kind: how it looks: ``best``, ``top``, ``better``, ``worse``, ``warn`` or nothing.
        shade: from -1 to 1, of its background; ``None`` without.
    """

    text: str
    small: str = ""
    kind: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """A table to be printed.

    Args:
        title: above it.
        caption: what it says, and what its intervals draw as a whole.
        columns: heads; the first are of the rows' names.
        rows: names and cells.
        names: how many leading columns are text.
        muted: rows of controls.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    muted: frozenset[int] = field(default_factory=frozenset)


def number(value: float) -> str:
    """As many digits as are worth reading."""
    if math.isnan(value):
        return NONE
    if value < 0:
        return MINUS + number(-value)
    size = value
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01 or value == 0:
        return f"{value:.3f}"
    return f"{value:.4f}" if size >= 0.0005 else f"{value:.0e}".replace("e-0", "e-")


def signed(value: float) -> str:
    """With its sign, a minus as long as a plus."""
    return ("+" if value >= 0 else MINUS) + number(abs(value))


def bounds(estimate: Estimate, show: Any = number) -> str:
    """An interval; empty where there is none."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return ""
    return f"{show(estimate.low)} to {show(estimate.high)}"


def p_text(p: float) -> str:
    """A p-value."""
    return NONE if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def drawn(panels: Iterable[Panel]) -> str:
    """What intervals draw as a whole, and of how many."""
    found = [one for one in panels if one.is_paired]
    if not found:
        return "values of all examples together, with the intervals that came with them"
    examples = _span(len(one.examples) for one in found)
    patients = _span(len(set(one.patients)) for one in found)
    if patients == examples:
        return f"{examples} examples, drawn one by one"
    return f"{examples} examples of {patients} patients, each patient drawn as a whole"


def head(metric: Metric) -> str:
    """A metric as the head of a column."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit} {ARROWS.get(metric.better, '')}".strip()


def cells(panel: Panel, is_marked: bool = False) -> dict[str, Cell]:
    """A column of a table by method: mean, interval, how many are defined, mark."""
    ahead = marks(panel) if is_marked else {}
    found = {}
    for name, estimate, count in zip(panel.methods, panel.estimates, panel.defined, strict=True):
        mark = ahead.get(name, "")
        small = bounds(estimate)
        if count < panel.count:
            what = "" if panel.is_paired else " seeds"
            small = f"{small}; {count} of {panel.count}{what}".lstrip("; ")
        text = number(estimate.value)
        found[name] = Cell(f"{MARKS[mark]} {text}" if mark else text, small, mark)
    return found


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


@dataclass(frozen=True, slots=True)
class Gap:
    """A B-cos network minus its twin.

    Args:
        metric: of networks.
        estimate: mean difference; the interval by patient, or the range over seeds.
        p: NaN without values by example.
        ratio: of the values; NaN where it means nothing.
    """

    metric: Metric
    estimate: Estimate
    p: float
    ratio: float


def backbone_difference(
    study: Study, data: str, backbone: str, twin: str, metric: Metric
) -> Gap | None:
    """What a B-cos network has more than its twin; ``None`` where one of them has no value."""
    a, b = study.panel(data, backbone, metric), study.panel(data, twin, metric)
    if a is None or b is None or "" not in a.methods or "" not in b.methods:
        return None
    i, j = a.methods.index(""), b.methods.index("")
    ratio = float(a.means[i] / b.means[j]) if b.means[j] > 0 else math.nan
    if a.is_paired and a.examples == b.examples:
        differences = a.values[:, i] - b.values[:, j]
        (estimate,) = group_means(differences, a.patients)
        return Gap(metric, estimate, float(sign_flip_test(differences, a.patients)[0]), ratio)
    shared = [seed for seed in a.seeds if seed in b.seeds]
    gaps = [
        a.seed_means[a.seeds.index(seed), i] - b.seed_means[b.seeds.index(seed), j]
        for seed in shared
    ]
    ends = (min(gaps), max(gaps)) if len(gaps) > 1 else (math.nan, math.nan)
    return Gap(metric, Estimate(float(a.means[i] - b.means[j]), *ends), math.nan, ratio)


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


@dataclass(frozen=True)
class Score:
    """How ours did by one metric, over all its networks and tile sets.

    Args:
        metric: by which.
        ours: mean of ours over networks and tile sets; with ``networks`` their number.
        networks: networks times tile sets.
        rival: the other method of the best mean over all of these; empty where none has all.
        rival_mean: its mean.
        random: mean of the random control there; NaN without.
        verdicts: of the contests in which both have a value.
        ahead: those in which ours has the better mean.
        tested: whether there are values by example.
        undefined: contests without a value of one of the two.
    """

    metric: Metric
    ours: float
    networks: int
    rival: str
    rival_mean: float
    random: float
    verdicts: Counter[Verdict]
    ahead: int
    tested: bool
    undefined: int

    @property
    def total(self) -> int:
        """Contests that could be held."""
        return self.verdicts.total()


def score(study: Study, metric: Metric, contests: Sequence[Contest]) -> Score | None:
    """Sum up contests of one of ours by one metric; none where none could be held."""
    asked = len(contests)
    contests = [one for one in contests if not math.isnan(one.difference.value)]
    if not contests:
        return None
    ours = contests[0].ours
    places = list(dict.fromkeys((c.data, c.backbone, c.other_backbone) for c in contests))
    mine: list[float] = []
    theirs: dict[str, list[float]] = {}
    blind: list[float] = []
    for data, backbone, other in places:
        panel, against = study.panel(data, backbone, metric), study.panel(data, other, metric)
        if panel is None or against is None:
            continue
        mine.append(float(panel.means[panel.methods.index(ours)]))
        for name, mean in zip(against.methods, against.means, strict=True):
            if role(name) == "random":
                blind.append(float(mean))
            elif not is_control(name) and not (is_ours(name) and against is panel):
                theirs.setdefault(name, []).append(float(mean))
    whole = {
        name: float(np.mean(v)) for name, v in theirs.items()
        if len(v) == len(places) and not np.isnan(v).any()
    }  # fmt: skip
    rival = max(whole, key=lambda name: metric.sign * whole[name]) if whole else ""
    return Score(
        metric, float(np.mean(mine)), len(places), rival, whole.get(rival, math.nan),
        float(np.mean(blind)) if blind else math.nan, Counter(c.verdict for c in contests),
        sum(c.gain > 0 for c in contests), any(c.pairs for c in contests), asked - len(contests),
    )  # fmt: skip


def scoreboard(
    study: Study,
    same: dict[Metric, list[Contest]],
    twins: dict[Metric, list[Contest]],
    alarms: Sequence[Alarm],
) -> Table | None:
    """Ours against all others, a row per headline metric; patients change sign as a whole."""
    rows = []
    for metric in study.headline:
        own = score(study, metric, [c for c in same[metric] if c.is_primary])
        other = score(study, metric, [c for c in twins[metric] if c.is_primary])
        some = own or other
        if some is None:
            continue
        bad = {(one.data, one.backbone) for one in alarms if one.metric == metric}
        total = sum(1 for _ in study.panels(metric))
        rows.append(
            [
                Cell(head(metric), metric.group),
                Cell(number(some.ours)),
                *_against(own, "none"),
                *_against(other, "none" if is_comparable(metric) else "not comparable"),
                Cell(
                    number(some.random),
                    f"a control leads in {len(bad)} of {total}" if bad else "",
                    "warn" if bad else "",
                ),
            ]
        )
    if not rows:
        return None
    caption = (
        "Means over networks, tile sets, seeds and examples. won, open, lost: sign-flip tests by"
        f" patient of our map against one method on one network, after Holm at {LEVEL:g} over the"
        " row; open is not told apart. First on the same network (here), then against methods on"
        " the twins. Best: of the methods that ran everywhere, chosen after looking. In brackets:"
        " ahead, without a test, as there is one value per network."
    )
    columns = [
        "metric", "ours", "best other here", "won / open / lost", "best of twins",
        "won / open / lost", "random",
    ]  # fmt: skip
    return Table("Ours against the rest", caption, columns, rows)


def _against(found: Score | None, why: str) -> list[Cell]:
    if found is None:
        return [Cell(NONE, why), Cell("")]
    name = Cell(number(found.rival_mean), found.rival or "none ran everywhere")
    if not found.tested:
        return [name, Cell(f"({found.ahead} of {found.total})", "not tested")]
    counts = [found.verdicts[one] for one in ("better", "open", "worse")]
    kind = "worse" if counts[2] else "better" if counts[0] else ""
    small = f"{found.undefined} not defined" if found.undefined else ""
    return [name, Cell(" / ".join(map(str, counts)), small, kind)]


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


def _span(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def markdown(table: Table) -> str:
    """A table for the docs, with its caption beneath."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(one.replace("|", "\\|") for one in texts) + " |"

    align = ["---" if i < table.names else "---:" for i in range(len(table.columns))]
    rows = [line(table.columns), "|" + "|".join(align) + "|"]
    for row in table.rows:
        rows.append(line(f"{one.text} ({one.small})" if one.small else one.text for one in row))
    return "\n".join([*rows, "", table.caption, ""])
