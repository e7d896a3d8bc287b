"""What the numbers say, in sentences: each by a rule from a test, each with its numbers.

No adjective stands without a number. Where the B-cos maps lose is said as plainly as where they
win, and before it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pathology.benchmark.report.contests import LEVEL, Contest, same_network
from pathology.benchmark.report.ranking import Agreement, Alarm, SeedStability
from pathology.benchmark.report.results import COST, SLIDES, Metric, Study
from pathology.benchmark.report.tables import (
    Score,
    backbone_difference,
    bounds,
    number,
    p_text,
    score,
    signed,
)
from pathology.benchmark.study.roles import is_control

DISAGREE = 0.2
"""Below this tau two metrics are said to disagree."""
UNSTABLE = 0.5
"""Below this tau the order of methods is said to change with the seed."""
WEAK = 0.6
"""Below this balanced accuracy a network is said to know little; of two classes 0.5 is chance."""
ABOUT_NETWORKS = ("balanced_accuracy", "auroc", "ece")
Kind = Literal["better", "worse", "open", "warn"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One finding.

    Args:
        text: in words and numbers.
        kind: for or against the B-cos maps, neither, or about the measurement itself.
        is_lead: whether it is the answer in short.
    """

    text: str
    kind: Kind = "open"
    is_lead: bool = False


def reading(
    study: Study,
    same: dict[Metric, list[Contest]],
    twins: dict[Metric, list[Contest]],
    alarms: Sequence[Alarm],
    agreed: Agreement,
    stable: Sequence[SeedStability],
) -> list[Sentence]:
    """The page's first paragraph; rules as of each function here.

    Args:
        study: read.
        same: contests on the same networks by metric.
        twins: contests against twins by metric.
        alarms: of headline metrics.
        agreed: of headline metrics.
        stable: of headline metrics.
    """
    leads: list[Sentence] = []
    found: list[Sentence] = []
    for is_slides in (False, True):
        for contests, where in ((same, "the same network"), (twins, "the twin")):
            part = {m: c for m, c in contests.items() if (m.group == SLIDES) == is_slides}
            subject = "Contributions of tiles" if is_slides else "B-cos maps"
            leads += _lead(part, subject, where, alarms)
            found += _on(study, part, subject, where)
    found += _planted(study)
    found += _networks(study)
    about = [
        *_weak(study), *_few(study, same, twins), *_stability(study, stable), *_agreement(agreed),
        *_missing(study),
    ]  # fmt: skip
    return [
        *leads,
        *(one for one in found if one.kind == "worse"),
        *_broken(alarms, study),
        *(one for one in about if one.kind == "warn"),
        *(one for one in found if one.kind != "worse"),
        *_shares(study),
        *(one for one in about if one.kind != "warn"),
    ]


def _lead(
    contests: dict[Metric, list[Contest]], subject: str, where: str, alarms: Sequence[Alarm]
) -> Iterator[Sentence]:
    """All tests of ours counted together; against them as soon as more are lost than won.

    Tests by a metric that a control leads on that network are in the counts, and are told.
    """
    found = [c for cs in contests.values() for c in cs if c.is_primary and c.verdict != "untested"]
    if not found:
        return
    counts = Counter(c.verdict for c in found)
    won, lost, total = counts["better"], counts["worse"], len(found)
    metrics = len({c.metric for c in found})
    led = {(one.metric, one.data, one.backbone) for one in alarms}
    void = sum((c.metric, c.data, c.backbone) in led for c in found)
    more = f" In {void} of these tests a control leads as well, so they say little." if void else ""
    yield Sentence(
        f"{subject} against methods on {where}: better in {won}, worse in {lost}, not told apart in"
        f" {counts['open']} of {total} tests by {metrics} headline"
        f" {'metric' if metrics == 1 else 'metrics'}.{more}",
        "better" if won > lost else "worse" if lost > won else "open",
        is_lead=True,
    )


def _on(
    study: Study, contests: dict[Metric, list[Contest]], subject: str, where: str
) -> Iterator[Sentence]:
    """Counts of won, open and lost tests by metric; losses first, with their methods.

    Metrics lost nowhere share a sentence, with those that no test decides.
    """
    ours = {m: [c for c in found if c.is_primary] for m, found in contests.items()}
    scores = [s for m, found in ours.items() if (s := score(study, m, found)) is not None]
    tested = [s for s in scores if s.tested]
    for one in tested:
        lost = [c for c in ours[one.metric] if c.verdict == "worse"]
        if lost:
            worst = min(lost, key=lambda c: c.gain)
            most = Counter(c.other for c in lost).most_common(4)
            yield Sentence(
                f"{subject} lose by {one.metric.title} on {where} in {len(lost)} of {one.total}"
                f" tests, to {_listed([f'{name} ({count})' for name, count in most])}"
                f"{' and others' if len({c.other for c in lost}) > 4 else ''}; they win"
                f" {one.verdicts['better']}. The largest loss: {_difference(worst)} against"
                f" {worst.other} ({worst.backbone}, {worst.data}).",
                "worse",
            )
    behind = [s for s in scores if not s.tested and 2 * s.ahead < s.total]
    if behind:
        parts = [
            f"{s.metric.title} in {s.total - s.ahead} of {s.total}{_beside(s)}" for s in behind
        ]
        yield Sentence(
            f"{subject} are behind on {where}, by one value per network and so without a test, by"
            f" {_listed(parts)}.",
            "worse",
        )
    texts = []
    won = [s for s in tested if not s.verdicts["worse"] and s.verdicts["better"]]
    if won:
        parts = [f"{s.metric.title} ({s.verdicts['better']} of {s.total})" for s in won]
        texts.append(f"{subject} lose no test on {where} and win by {_listed(parts)}.")
    still = [s for s in tested if not s.verdicts["worse"] and not s.verdicts["better"]]
    if still:
        parts = [f"{s.metric.title} (ahead in {s.ahead} of {s.total})" for s in still]
        texts.append(f"No test on {where} decides by {_listed(parts)}.")
    together = [s for s in scores if not s.tested and 2 * s.ahead >= s.total]
    if together:
        parts = [f"{s.metric.title} ahead in {s.ahead} of {s.total}{_beside(s)}" for s in together]
        texts.append(f"One value per network, so without a test, on {where}: {_listed(parts)}.")
    if texts:
        yield Sentence(" ".join(texts), "better" if won else "open")


def _planted(study: Study) -> Iterator[Sentence]:
    """Where a mark is planted, whether maps of networks that owe something to it point at it."""
    metrics = {one.name: one for one in study.metrics() if one.group == "confounder"}
    pointing, reliance = metrics.get("mark_epg"), metrics.get("mark_reliance")
    if pointing is None or reliance is None:
        return
    for data in study.data:
        owed = {
            p.backbone: p.estimates[0] for p in study.panels(reliance) if p.data == data
        }  # the same for every method
        relying = [name for name, one in owed.items() if one.low > 0]
        if not owed:
            continue
        values = [one.value for one in owed.values()]
        text = (
            f"A mark is planted in {data}: the logit owes {signed(min(values))} to"
            f" {signed(max(values))} to it, more than nothing on {len(relying)} of {len(owed)}"
            " networks."
        )
        contests = [
            c
            for c in same_network(study, pointing, [(data, name) for name in relying])
            if c.is_primary
        ]
        found = score(study, pointing, contests)
        if found is None:
            yield Sentence(text)
            continue
        won, lost = found.verdicts["better"], found.verdicts["worse"]
        yield Sentence(
            f"{text} Of the positive values of B-cos maps {number(found.ours)} lie on it, of the"
            f" best other there {number(found.rival_mean)} ({found.rival}), of random"
            f" {number(found.random)}: better in {won}, worse in {lost} of {found.total} tests.",
            "worse" if lost > won else "better" if won > lost else "open",
        )


def _beside(found: Score) -> str:
    """Ours beside the best other method."""
    if not found.rival:
        return ""
    return (
        f" ({number(found.ours)}, best other {number(found.rival_mean)} of {found.rival}, random"
        f" {number(found.random)})"
    )


def _difference(contest: Contest) -> str:
    interval = bounds(contest.difference, signed)
    return (
        f"{signed(contest.difference.value)}"
        + (f" [{interval}]" if interval else "")
        + f", p {p_text(contest.adjusted)}"
    )


def _networks(study: Study) -> Iterator[Sentence]:
    """Every pair's accuracy and calibration, then what the B-cos network costs beside its twin."""
    about, costs = [], []
    behind = ahead = 0
    for metric in study.backbone_metrics:
        if metric.name not in ABOUT_NETWORKS and (metric.group != COST or not metric.sign):
            continue
        gaps = [
            gap
            for data in study.data
            for backbone in map(str, study.backbones.index)
            if study.is_ours(backbone)
            for twin in study.twins(backbone)
            if (gap := backbone_difference(study, data, backbone, twin, metric)) is not None
            and not math.isnan(gap.estimate.value)
        ]
        if not gaps:
            continue
        values = [gap.estimate.value for gap in gaps]
        if metric.name in ABOUT_NETWORKS:
            worse = sum(metric.sign * one < 0 for one in values)
            behind, ahead = behind + worse, ahead + sum(metric.sign * one > 0 for one in values)
            about.append(
                f"{metric.title} {signed(float(np.mean(values)))} ({signed(min(values))} to"
                f" {signed(max(values))}), behind in {worse} of {len(gaps)}"
            )
        else:
            ratios = [gap.ratio for gap in gaps if gap.ratio > 0]
            if ratios:
                mean = float(np.exp(np.mean(np.log(ratios))))
                costs.append(f"{metric.title} {mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    if about:
        kind: Kind = "worse" if behind > ahead else "better" if ahead > behind else "open"
        yield Sentence(
            "B-cos networks less their twins, mean and range over pairs and sets:"
            f" {'; '.join(about)}.",
            kind,
        )
    if costs:
        yield Sentence(f"Their cost as a multiple of the twins': {_listed(costs)}.")


def _weak(study: Study) -> Iterator[Sentence]:
    """Networks that hardly learnt: there is little for their maps to explain."""
    found = [
        f"{panel.backbone} on {panel.data} ({number(float(panel.means[0]))})"
        for metric in study.backbone_metrics
        if metric.name == "balanced_accuracy"
        for panel in study.panels(metric)
        if panel.means[0] < WEAK
    ]
    if found:
        yield Sentence(
            f"Balanced accuracy below {WEAK:g}: {_listed(found)}. Maps of a network that knows"
            " little explain little, and beating them says little.",
            "warn",
        )


def _shares(study: Study) -> Iterator[Sentence]:
    """How much of the logit is in the pixels, of every method that says so."""
    for metric in study.metrics():
        if metric.group == "ledger" and "pixel" in metric.name:
            means: dict[str, list[float]] = {}
            for panel in study.panels(metric):
                for name, value in zip(panel.methods, panel.means, strict=True):
                    if not is_control(name) and not math.isnan(value):
                        means.setdefault(name, []).append(float(value))
            parts = [f"{name} {_range(v)}" for name, v in means.items()]
            if parts:
                yield Sentence(
                    f"{metric.title}, mean and range over networks and sets: {_listed(parts)}; what"
                    " is missing is position codes, tokens, biases, logits of baselines and what"
                    " does not add up.",
                )


def _range(values: Sequence[float]) -> str:
    """Mean, and ends where they differ."""
    mean, low, high = map(number, (float(np.mean(values)), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _broken(alarms: Sequence[Alarm], study: Study) -> Iterator[Sentence]:
    """Metrics by which a control is where it must not be, in one sentence."""
    parts = []
    for metric in dict.fromkeys(one.metric for one in alarms):
        found = [one for one in alarms if one.metric == metric]
        places = len({(one.data, one.backbone) for one in found})
        total = sum(1 for _ in study.panels(metric))
        best = min(found, key=lambda one: one.rank)
        parts.append(
            f"{metric.title} in {places} of {total} tables ({best.control} is {best.rank} of"
            f" {best.methods} on {best.backbone}, {best.data})"
        )
    if parts:
        yield Sentence(
            f"Does not separate methods from controls here: {_listed(parts)}. Nothing follows from"
            " who leads there.",
            "warn",
        )


def _agreement(found: Agreement) -> Iterator[Sentence]:
    """Pairs of metrics whose tau is below :data:`DISAGREE`; else the lowest pair."""
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
    apart = [one for one in pairs if one[0] < DISAGREE]
    if apart:
        parts = [f"{a} and {b} (tau {tau:.2f})" for tau, a, b in apart[:5]]
        more = f" and {len(apart) - 5} further pairs" if len(apart) > 5 else ""
        yield Sentence(
            f"Metrics disagree on who is best (tau below {DISAGREE:g}): {_listed(parts)}{more}, of"
            f" {len(pairs)} pairs.",
            "warn",
        )
    else:
        tau, a, b = pairs[0]
        yield Sentence(
            f"Metrics order methods alike: the lowest tau of {len(pairs)} pairs is {tau:.2f} ({a}"
            f" and {b})."
        )


def _stability(study: Study, found: Sequence[SeedStability]) -> Iterator[Sentence]:
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
            f"Another seed reorders the methods (mean tau below {UNSTABLE:g}) by {_listed(parts)}.",
            "warn",
        )
    elif found:
        least = min(found, key=lambda one: one.tau)
        yield Sentence(
            f"Over {len(study.seeds)} seeds the order of methods holds with a mean tau of at least"
            f" {least.tau:.2f} ({least.metric.title})."
        )


def _missing(study: Study) -> Iterator[Sentence]:
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


def _few(
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
            blind.setdefault((patients, _listed(parts)), []).append(metric.title)
    if blind:
        told = [
            f"by {_listed(names)}, whose {patients} independent patients allow no p-value below"
            f" {_least(patients):.3f} before correction for {tests}"
            for (patients, tests), names in blind.items()
        ]
        yield Sentence(f"Too few patients: no test can decide {'; '.join(told)}.", "warn")


def _least(patients: int) -> float:
    """The smallest p-value that sign flips of so many patients can give."""
    return float(2.0 ** (1 - patients))


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
