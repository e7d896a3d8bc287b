"""A study as what the page's template fills in."""

from collections.abc import Iterator, Sequence
from typing import Any

from pathology.benchmark.report import figures, tables
from pathology.benchmark.report.contests import is_comparable
from pathology.benchmark.report.findings import Findings
from pathology.benchmark.report.metric import SLIDES
from pathology.benchmark.report.numbers import p_text
from pathology.benchmark.report.pictures import Picture, Strip, strips
from pathology.benchmark.report.ranking import FAMILIES, Ranking, rankings
from pathology.benchmark.report.reading import reading
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.measures.catalogue import METRICS
from pathology.benchmark.study.roles import is_control
from pathology.pages import image_uri

MOST_CONTESTS = 400
"""Rows of a table of tests; all follow from the table of results."""


def section(study: Study, pictures: Sequence[Picture]) -> dict[str, Any]:
    """All that the page says of a study.

    Args:
        study: whose.
        pictures: of this study and of others.
    """
    found = Findings(study)
    own = [one for one in pictures if one.study == study.name]
    return {
        "name": study.name,
        "about": _about(study),
        "reading": reading(found),
        "scoreboard": tables.scoreboard(found),
        "dots": _dots(study),
        "headline": tables.headline_tables(study),
        "slides": tables.headline_tables(study, is_slides=True),
        "backbones": tables.backbone_tables(study),
        "groups": tables.group_tables(study),
        "cost": _cost(study),
        "rankings": _rankings(study),
        "agreement": tables.agreement_table(found.agreed) if found.agreed.counts.any() else None,
        "stability": tables.stability_table(found.stable) if found.stable else None,
        "alarms": tables.alarm_table(found.alarms) if found.alarms else None,
        "contests": [*_contest_tables(found)],
        "strips": [_strip(one) for one in strips(own)],
        "missing": [
            one
            for one in (
                tables.undefined_table(study),
                tables.refused_table(study),
                tables.failed_table(study),
            )
            if one is not None
        ],
        "metrics": _glossary(study),
    }


def _about(study: Study) -> list[tuple[str, str]]:
    """What was compared, in a few rows."""
    pairs: dict[str, list[str]] = {}
    for name, about in study.backbones.iterrows():
        if name:
            pairs.setdefault(str(about["pair"]) or str(name), []).append(str(name))
    methods = [one for one in study.methods if not is_control(one)]
    controls = [one for one in study.methods if is_control(one)]
    sets = []
    for data in study.data:
        of_all = study.of_methods[study.of_methods["group"] != "grid"]  # whose examples are mosaics
        rows = of_all[(of_all["data"] == data) & (of_all["example"] != "")]
        count, patients = rows["example"].nunique(), rows["patient"].nunique()
        drawn = "" if patients == count else f" of {patients} patients"
        sets.append(f"{data or 'all'}: {count} examples explained{drawn}")
    return [
        ("Data", "; ".join(sets)),
        ("Networks", "; ".join(" and ".join(one) for one in pairs.values())),
        ("Methods", f"{len(methods)}: {', '.join(methods)}; controls: {', '.join(controls)}"),
        ("Seeds", ", ".join(map(str, study.seeds))),
    ]


def _dots(study: Study) -> list[dict[str, str]]:
    found = []
    metrics = [one for one in study.headline if one.group != SLIDES]
    for data in study.data:
        figure = figures.dot_figure(study, data, metrics)
        if figure is not None:
            panels = [p for m in metrics for p in study.panels(m) if p.data == data]
            caption = (
                "Filled: B-cos networks; hollow: conventional ones. Means over seeds with 95 %"
                f" intervals; {tables.drawn(panels)}. Controls below."
            )
            found.append(_figure(f"Methods on {data or 'all'}", figures.svg_uri(figure), caption))
    return found


def _cost(study: Study) -> list[dict[str, Any]]:
    """A metric of each group first, which is enough to see what quality costs; then the others."""
    seconds = figures.seconds_metric(study)
    if seconds is None:
        return []
    found = []
    first = {one.group: one for one in reversed(study.headline)}
    for metric in study.headline:
        figure = figures.cost_figure(study, metric, seconds)
        if figure is not None:
            caption = "A point is a mean over networks and sets (seconds: geometric); no intervals."
            title = f"{metric.title} against seconds"
            shown = _figure(title, figures.svg_uri(figure), caption)
            found.append({**shown, "is_first": metric in first.values()})
    return found


def _rankings(study: Study) -> list[dict[str, Any]]:
    """Overall ones first; where there are none, all are shown unfolded."""
    found = sorted(rankings(study), key=lambda one: (not one.is_overall, one.family))
    is_folded = any(one.is_overall for one in found)
    return [
        {
            **_figure(
                f"{one.title}, {FAMILIES[one.family]}",
                figures.svg_uri(figures.critical_difference_figure(one)),
                _ranking_caption(one),
            ),
            "is_first": one.is_overall or not is_folded,
        }
        for one in found
    ]


def _ranking_caption(ranking: Ranking) -> str:
    text = (
        f"{len(ranking.blocks)} blocks, Friedman p {p_text(ranking.p)}, Nemenyi's critical"
        f" difference {ranking.difference:.2f} at 0.05."
    )
    if ranking.left_out:
        total = len(ranking.blocks)
        parts = [f"{n} ({k} of {total})" if k else n for n, k in ranking.left_out.items()]
        text += f" Without a value in every block, so left out: {', '.join(parts)}."
    return text


def _contest_tables(found: Findings) -> Iterator[tables.Table]:
    for by_metric, what in ((found.same, "same network"), (found.twins, "against twins")):
        for contests in by_metric.values():
            if contests:
                kept = sorted(contests, key=lambda one: one.gain)[:MOST_CONTESTS]
                yield tables.contest_table(kept, what)


def _strip(strip: Strip) -> dict[str, Any]:
    return {
        "title": f"{strip.backbone} on {strip.data}, seed {strip.seed}",
        "examples": strip.examples,
        "rows": [
            {
                "method": row.method,
                "scale": row.scale,
                "is_control": is_control(row.method),
                "source": image_uri(row.image, "png"),
                "width": row.image.width,
            }
            for row in strip.rows
        ],
    }


def _glossary(study: Study) -> list[tuple[str, str]]:
    """What each metric is, and whether networks may be compared by it."""
    found = []
    for metric in study.metrics():
        known = METRICS.get(metric.group, {}).get(metric.name)
        what = known.what if known is not None else metric.group
        across = "" if is_comparable(metric) or not metric.sign else "; within a network only"
        side = f"; {metric.better} is better" if metric.sign else ""
        found.append((metric.title, f"{what}{side}{across}"))
    return found


def _figure(title: str, source: str, caption: str) -> dict[str, str]:
    return {"title": title, "source": source, "caption": caption}
