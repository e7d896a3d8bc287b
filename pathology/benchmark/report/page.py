"""The page of one or several studies: whole in itself, the answer first, the numbers behind it."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from pathology.benchmark.report import figures, tables
from pathology.benchmark.report.contests import (
    Contest,
    against_twins,
    is_comparable,
    same_network,
)
from pathology.benchmark.report.pictures import Picture, Strip, strips
from pathology.benchmark.report.ranking import (
    FAMILIES,
    Ranking,
    agreement,
    alarms,
    rankings,
    seed_stability,
)
from pathology.benchmark.report.reading import reading
from pathology.benchmark.report.results import (
    SLIDES,
    Metric,
    Study,
    read_studies,
)
from pathology.benchmark.study.measures.catalogue import METRICS
from pathology.benchmark.study.roles import is_control
from pathology.outputs import complete_file
from pathology.pages import image_uri, page_template

TEMPLATE = Path(__file__).with_name("templates") / "page.html.j2"
PACKAGES = ("bcos-pathology", "torch", "timm", "lightning", "captum", "numpy", "scipy", "pandas")
MOST_CONTESTS = 400
"""Rows of a table of tests; all follow from the table of results."""


def write_page(
    results: pd.DataFrame,
    pictures: Sequence[Picture],
    out: Path,
    commands: Sequence[str],
    title: str = "Benchmark of explanations",
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the page.

    Args:
        results: columns :data:`~pathology.benchmark.study.rows.COLUMNS`, of one or several studies.
        pictures: example maps, the same examples for every method.
        out: file to write; an existing one is replaced.
        commands: that made the results, as they can be run again.
        title: above it.
        provenance: further words about what made this; versions are there anyway.

    Returns:
        ``out``.

    Raises:
        ValueError: results that lack columns or say two things of one value.
        OutputError: the file cannot be written.
    """
    html = render_page(results, pictures, commands, title, provenance)
    with complete_file(Path(out)) as draft:
        draft.write_text(html, encoding="utf-8")
    return Path(out)


def render_page(
    results: pd.DataFrame,
    pictures: Sequence[Picture],
    commands: Sequence[str],
    title: str = "Benchmark of explanations",
    provenance: Mapping[str, str] | None = None,
) -> str:
    """The HTML that :func:`write_page` writes."""
    studies = read_studies(results)
    return page_template(TEMPLATE).render(
        title=title,
        studies=[_section(study, pictures) for study in studies],
        commands=list(commands),
        provenance={**(provenance or {}), **_versions()},
    )


def table_markdown(results: pd.DataFrame, study: str) -> str:
    """The first tables of a study for the docs: ours against the rest, then networks and methods.

    Args:
        results: as of :func:`write_page`.
        study: its name.

    Raises:
        ValueError: there is no such study.
    """
    found = find_study(results, study)
    same, twins = _contests(found)
    board = tables.scoreboard(found, same, twins, alarms(found, found.headline))
    shown = [] if board is None else [board]
    shown += [*tables.backbone_tables(found), *tables.headline_tables(found)]
    shown += tables.headline_tables(found, is_slides=True)
    return "\n".join(f"**{one.title}**\n\n{tables.markdown(one)}" for one in shown)


def reading_markdown(results: pd.DataFrame, study: str) -> str:
    """What the page says first, as a list for the docs.

    Raises:
        ValueError: there is no such study.
    """
    return "\n".join(f"- {one.text}" for one in _reading(find_study(results, study)))


def find_study(results: pd.DataFrame, name: str) -> Study:
    """One study of a table.

    Raises:
        ValueError: there is no such study.
    """
    studies = {one.name: one for one in read_studies(results)}
    if name not in studies:
        raise ValueError(f"no study {name!r} in the results, which have {', '.join(studies)}")
    return studies[name]


def _contests(
    study: Study,
) -> tuple[dict[Metric, list[Contest]], dict[Metric, list[Contest]]]:
    same = {metric: same_network(study, metric) for metric in study.headline}
    twins = {metric: against_twins(study, metric) for metric in study.headline}
    return same, twins


def _reading(study: Study) -> list[Any]:
    same, twins = _contests(study)
    found = study.headline
    return reading(
        study, same, twins, alarms(study, found), agreement(study, found),
        seed_stability(study, found),
    )  # fmt: skip


def _section(study: Study, pictures: Sequence[Picture]) -> dict[str, Any]:
    same, twins = _contests(study)
    headline = study.headline
    found_alarms = alarms(study, headline)
    agreed, stable = agreement(study, headline), seed_stability(study, headline)
    sentences = reading(study, same, twins, found_alarms, agreed, stable)
    own = [one for one in pictures if one.study == study.name]
    return {
        "name": study.name,
        "about": _about(study),
        "reading": sentences,
        "scoreboard": tables.scoreboard(study, same, twins, found_alarms),
        "dots": _dots(study),
        "headline": tables.headline_tables(study),
        "slides": tables.headline_tables(study, is_slides=True),
        "backbones": tables.backbone_tables(study),
        "groups": tables.group_tables(study),
        "cost": _cost(study),
        "rankings": _rankings(study),
        "agreement": tables.agreement_table(agreed) if agreed.counts.any() else None,
        "stability": tables.stability_table(stable) if stable else None,
        "alarms": tables.alarm_table(found_alarms) if found_alarms else None,
        "contests": [*_contest_tables(same, twins)],
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
    panels = [p for metric in study.headline for p in study.panels(metric)]
    methods = [one for one in study.methods if not is_control(one)]
    controls = [one for one in study.methods if is_control(one)]
    sets = []
    for data in study.data:
        sizes = [p for p in panels if p.data == data and p.is_paired]
        count = max((len(p.examples) for p in sizes), default=0)
        patients = max((len(set(p.patients)) for p in sizes), default=0)
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
        f"{len(ranking.blocks)} blocks, Friedman p {tables.p_text(ranking.p)}, Nemenyi's critical"
        f" difference {ranking.difference:.2f} at 0.05."
    )
    if ranking.left_out:
        total = len(ranking.blocks)
        parts = [f"{n} ({k} of {total})" if k else n for n, k in ranking.left_out.items()]
        text += f" Without a value in every block, so left out: {', '.join(parts)}."
    return text


def _contest_tables(
    same: Mapping[Metric, list[Contest]], twins: Mapping[Metric, list[Contest]]
) -> Iterator[tables.Table]:
    for found, what in ((same, "same network"), (twins, "against twins")):
        for contests in found.values():
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


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
