"""How ours did by a metric, over all its networks and tile sets."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pathology.benchmark.report.contests import Contest, Verdict
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control, is_ours, role


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
