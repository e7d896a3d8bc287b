"""Ours against all others, a row per headline metric."""

from pathology.benchmark.report.contests import LEVEL, is_comparable
from pathology.benchmark.report.findings import Findings
from pathology.benchmark.report.numbers import NONE, number
from pathology.benchmark.report.scores import Score, score
from pathology.benchmark.report.tables.columns import head
from pathology.benchmark.report.tables.table import Cell, Table


def scoreboard(found: Findings) -> Table | None:
    """Ours against all others, a row per headline metric; patients change sign as a whole."""
    study, rows = found.study, []
    for metric in study.headline:
        own = score(study, metric, [c for c in found.same[metric] if c.is_primary])
        other = score(study, metric, [c for c in found.twins[metric] if c.is_primary])
        some = own or other
        if some is None:
            continue
        bad = {(one.data, one.backbone) for one in found.alarms if one.metric == metric}
        total = sum(1 for _ in study.panels(metric))
        rows.append(
            [
                Cell(head(metric), metric.group),
                Cell(number(some.ours)),
                *_against(own, "none"),
                *_against(other, "none" if is_comparable(metric) else "not comparable"),
                Cell(
                    number(some.random),
                    f"controls too high in {len(bad)} of {total}" if bad else "",
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
        " ahead, without a test, as there is one value per network. Controls too high: random in"
        " the upper half, or another control ahead of all methods."
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
