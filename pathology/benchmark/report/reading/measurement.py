"""What the measurement itself is worth: controls, patients, seeds, agreement, what is missing."""

import math
from collections.abc import Iterator, Sequence

from pathology.benchmark.report.agreement import Agreement, SeedStability
from pathology.benchmark.report.alarms import Alarm
from pathology.benchmark.report.contests import LEVEL, Contest
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.reading.sentence import Sentence, listed
from pathology.benchmark.report.study import Study

DISAGREE = 0.2
"""Below this tau two metrics are said to disagree."""
ALIKE = 0.8
"""Above this tau two metrics are said to say the same."""
UNSTABLE = 0.5
"""Below this tau the order of methods is said to change with the seed."""


def broken(alarms: Sequence[Alarm], study: Study) -> Iterator[Sentence]:
    """Metrics by which a control is where it must not be, in one sentence."""
    told: dict[str, list[str]] = {}
    for metric in dict.fromkeys(one.metric for one in alarms):
        found = [one for one in alarms if one.metric == metric]
        places = len({(one.data, one.backbone) for one in found})
        total = sum(1 for _ in study.panels(metric))
        best = min(found, key=lambda one: one.rank)
        where = (
            f"in {places} of {total} tables ({best.control} is {best.rank} of {best.methods} on"
            f" {best.backbone}, {best.data})"
        )
        told.setdefault(where, []).append(metric.title)
    if told:
        parts = [f"{listed(names)} {where}" for where, names in told.items()]
        yield Sentence(
            f"Does not separate methods from controls: {'; '.join(parts)}. Nothing follows from"
            " who leads there.",
            "warn",
        )


def few(
    study: Study, same: dict[Metric, list[Contest]], twins: dict[Metric, list[Contest]]
) -> Iterator[Sentence]:
    """Metrics with too few patients for any of their tests to decide, in one sentence."""
    blind: dict[tuple[int, str], list[str]] = {}
    for metric in same:
        panels = [one for one in study.panels(metric) if one.is_paired]
        patients = max((len(set(one.patients)) for one in panels), default=0)
        counts = {
            where: sum(c.is_primary and c.verdict != "untested" for c in found[metric])
            for where, found in (("on the same network", same), ("on the twin", twins))
        }
        parts = [
            f"{count} {where}" for where, count in counts.items()
            if count and _least(patients) * count > LEVEL
        ]  # fmt: skip
        if parts:
            blind.setdefault((patients, listed(parts)), []).append(metric.title)
    if blind:
        told = [
            f"by {listed(names)}, whose {patients} independent patients allow no p-value below"
            f" {_least(patients):.3f} before correction for {tests}"
            for (patients, tests), names in blind.items()
        ]
        yield Sentence(f"Too few patients: no test can decide {'; '.join(told)}.", "warn")


def _least(patients: int) -> float:
    """The smallest p-value that sign flips of so many patients can give."""
    return float(2.0 ** (1 - patients))


def agreement(found: Agreement) -> Iterator[Sentence]:
    """Pairs of metrics whose tau is below :data:`DISAGREE`, else the lowest; those that are one."""
    size = len(found.metrics)
    pairs = [
        (float(found.tau[i, j]), found.metrics[i].title, found.metrics[j].title)
        for i in range(size)
        for j in range(i + 1, size)
        if not math.isnan(found.tau[i, j])
    ]
    if not pairs:
        return
    pairs.sort()
    alike = [f"{a} and {b} (tau {tau:.2f})" for tau, a, b in pairs if tau > ALIKE]
    if alike:
        yield Sentence(
            f"Metrics that say nearly the same (tau above {ALIKE:g}), so that what is won or lost"
            f" by one counts twice above: {listed(alike)}.",
            "warn",
        )
    apart = [one for one in pairs if one[0] < DISAGREE]
    if apart:
        parts = [f"{a} and {b} (tau {tau:.2f})" for tau, a, b in apart[:5]]
        more = f" and {len(apart) - 5} further pairs" if len(apart) > 5 else ""
        yield Sentence(
            f"Metrics disagree on who is best (tau below {DISAGREE:g}): {listed(parts)}{more}, of"
            f" {len(pairs)} pairs.",
            "warn",
        )
    else:
        tau, a, b = pairs[0]
        yield Sentence(
            f"Metrics order methods alike: the lowest tau of {len(pairs)} pairs is {tau:.2f} ({a}"
            f" and {b})."
        )


def stability(study: Study, found: Sequence[SeedStability]) -> Iterator[Sentence]:
    """Orders that change with the seed; that there is one seed only."""
    if len(study.seeds) == 1:
        yield Sentence(
            "One seed: nothing here says how another training of the same network would rank.",
            "warn",
        )
        return
    loose = [one for one in found if one.tau < UNSTABLE]
    if loose:
        parts = [f"{one.metric.title} (tau {one.tau:.2f})" for one in loose]
        yield Sentence(
            f"Another seed reorders the methods (mean tau below {UNSTABLE:g}) by {listed(parts)}.",
            "warn",
        )
    elif found:
        least = min(found, key=lambda one: one.tau)
        yield Sentence(
            f"Over {len(study.seeds)} seeds the order of methods holds with a mean tau of at least"
            f" {least.tau:.2f} ({least.metric.title})."
        )


def missing(study: Study) -> Iterator[Sentence]:
    """What is not in any mean."""
    asked = study.values[~study.is_lacking & (study.values["method"] != "")]
    lost = int(asked["value"].isna().sum())
    pairs = study.rows[study.is_refused].drop_duplicates(["backbone", "method"])
    failed = int(study.is_failed.sum())
    if lost or len(pairs) or failed:
        yield Sentence(
            f"{lost:,} of {len(asked):,} values of methods are not defined,"
            f" pairs of method and network that are refused: {len(pairs)}, pieces of work that"
            f" failed: {failed}. All are listed below with reasons.",
            "warn" if failed else "open",
        )
