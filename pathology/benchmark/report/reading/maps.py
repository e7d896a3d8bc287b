"""What tests say of maps: sums first, then metric by metric, losses with their methods."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pathology.benchmark.report.alarms import Alarm
from pathology.benchmark.report.contests import Contest
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.numbers import bounds, number, p_text, signed
from pathology.benchmark.report.reading.sentence import Sentence, listed
from pathology.benchmark.report.scores import Score, score
from pathology.benchmark.report.study import Study


def lead(
    contests: dict[Metric, list[Contest]], subject: str, where: str, alarms: Sequence[Alarm]
) -> Iterator[Sentence]:
    """All tests of ours counted together; against them as soon as more are lost than won.

    Tests by a metric that does not tell methods from controls on that network are in the counts,
    and are told.
    """
    found = [c for cs in contests.values() for c in cs if c.is_primary and c.verdict != "untested"]
    if not found:
        return
    counts = Counter(c.verdict for c in found)
    won, lost, total = counts["better"], counts["worse"], len(found)
    metrics = len({c.metric for c in found})
    led = {(one.metric, one.data, one.backbone) for one in alarms}
    void = sum((c.metric, c.data, c.backbone) in led for c in found)
    more = (
        f" {void} of these tests are by metrics that do not tell methods from controls on that"
        " network, and say little."
        if void
        else ""
    )
    yield Sentence(
        f"{subject} against methods on {where}: better in {won}, worse in {lost}, not told apart in"
        f" {counts['open']} of {total} tests by {metrics} headline"
        f" {'metric' if metrics == 1 else 'metrics'}.{more}",
        "better" if won > lost else "worse" if lost > won else "open",
        is_lead=True,
    )


def by_metric(
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
            lost.sort(key=lambda c: c.gain)  # of methods that win as often the clearer one first
            most = Counter(c.other for c in lost).most_common(4)
            worst = lost[0]
            yield Sentence(
                f"{subject} lose by {one.metric.title} on {where} in {len(lost)} of {one.total}"
                f" tests, to {listed([f'{name} ({count})' for name, count in most])}"
                f"{' and others' if len({c.other for c in lost}) > 4 else ''}; they win"
                f" {one.verdicts['better']}. The largest loss: {_difference(worst)} against"
                f" {worst.other} ({worst.backbone}, {worst.data}).",
                "worse",
            )
    behind = [s for s in scores if not s.tested and 2 * s.ahead < s.total]
    if behind:
        parts = [
            f"{s.metric.title} in {s.total - s.ahead} of {s.total}{_beside(s, ours[s.metric])}"
            for s in behind
        ]
        yield Sentence(
            f"{subject} are behind on {where}, by one value per network and so without a test, by"
            f" {listed(parts)}.",
            "worse",
        )
    texts = []
    won = [s for s in tested if not s.verdicts["worse"] and s.verdicts["better"]]
    if won:
        parts = [f"{s.metric.title} ({s.verdicts['better']} of {s.total})" for s in won]
        texts.append(f"{subject} lose no test on {where} and win by {listed(parts)}.")
    still = [s for s in tested if not s.verdicts["worse"] and not s.verdicts["better"]]
    if still:
        parts = [f"{s.metric.title} (ahead in {s.ahead} of {s.total})" for s in still]
        texts.append(f"No test on {where} decides by {listed(parts)}.")
    together = [s for s in scores if not s.tested and 2 * s.ahead >= s.total]
    if together:
        parts = [
            f"{s.metric.title} ahead in {s.ahead} of {s.total}{_beside(s, ours[s.metric])}"
            for s in together
        ]
        texts.append(f"One value per network, so without a test, on {where}: {listed(parts)}.")
    if texts:
        yield Sentence(" ".join(texts), "better" if won else "open")


def _beside(found: Score, contests: Sequence[Contest]) -> str:
    """Ours beside the best method that ran everywhere, and where ours is farthest behind."""
    parts = [number(found.ours)]
    if found.rival:
        parts.append(f"best that ran everywhere {number(found.rival_mean)} of {found.rival}")
    parts.append(f"random {number(found.random)}")
    behind = [one for one in contests if one.gain < 0]
    if behind:
        worst = min(behind, key=lambda one: one.gain)
        where = f"{worst.other} on {worst.other_backbone}, {worst.data}"
        parts.append(f"farthest behind {where}: {signed(worst.difference.value)}")
    return f" ({'; '.join(parts)})"


def _difference(contest: Contest) -> str:
    interval = bounds(contest.difference, signed)
    return (
        f"{signed(contest.difference.value)}"
        + (f" [{interval}]" if interval else "")
        + f", p {p_text(contest.adjusted)}"
    )
