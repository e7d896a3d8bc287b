"""Where a mark is planted, whether maps point at it."""

from collections.abc import Iterator

from pathology.benchmark.report.contests import same_network
from pathology.benchmark.report.numbers import number, signed
from pathology.benchmark.report.reading.sentence import Sentence
from pathology.benchmark.report.scores import score
from pathology.benchmark.report.study import Study


def planted(study: Study) -> Iterator[Sentence]:
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
