"""Who is better: tests of methods against each other, by example and patient.

Three families of tests, each corrected by Holm for itself:

- within a column of a table (one network, one metric) every method against every other: marks;
- on B-cos networks, ours against every other method, over all networks and tile sets of a metric;
- ours on a B-cos network against every method on its twin, likewise, for metrics that may be
  compared across networks.

Controls are in none of them.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.report.metric import SLIDES, Metric
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control, is_ours, role
from pathology.metrics.bootstrap import Estimate
from pathology.metrics.comparison import group_means, holm, sign_flip_test

LEVEL = 0.05
ACROSS = ("localisation", "grid", "idsds", SLIDES)
"""Groups whose values mean the same on two networks: they compare maps with a truth.

Where a map ought to point when a mark is planted depends on how much the network owes to it.

How a logit answers to removed pixels depends on the network: one collapses under any mask, another
drops tokens. Of those only single deletion (SDS, IDSDS), a correlation made for the purpose, is
compared across networks.
"""
Verdict = Literal["better", "worse", "open", "untested"]
Mark = Literal["best", "top", ""]


@dataclass(frozen=True, slots=True)
class Contest:
    """Ours against another method.

    Args:
        metric: by which.
        data: name of the tile set.
        backbone: that our map is of.
        ours: name of our method.
        other_backbone: that the other map is of.
        other: name of the other method.
        difference: ours minus the other, mean over pairs with interval; without pairs only the
            difference of values.
        p: two-sided, of this test by itself; NaN where it cannot be tested.
        adjusted: of the family, after Holm.
        pairs: examples that both are defined on.
        examples: all.
    """

    metric: Metric
    data: str
    backbone: str
    ours: str
    other_backbone: str
    other: str
    difference: Estimate
    p: float
    adjusted: float
    pairs: int
    examples: int

    @property
    def gain(self) -> float:
        """The difference, positive where ours is better."""
        return self.metric.sign * self.difference.value

    @property
    def is_primary(self) -> bool:
        """Whether it is of the map that a study's claim is about."""
        return role(self.ours) == self.metric.primary

    @property
    def verdict(self) -> Verdict:
        """What the corrected test says."""
        if math.isnan(self.adjusted):
            return "untested"
        if self.adjusted > LEVEL or self.gain == 0:
            return "open"
        return "better" if self.gain > 0 else "worse"


def marks(panel: Panel) -> dict[str, Mark]:
    """Which methods of a column are ahead.

    ``best``: ahead of every other by a corrected test. Where there is no such method, the one with
    the best mean and all that are not told apart from it are ``top``.
    """
    contestants = [i for i, name in enumerate(panel.methods) if not is_control(name)]
    known = [i for i in contestants if panel.defined[i]]
    if not panel.is_paired or len(known) < 2 or not panel.metric.sign:
        return {}
    first = max(known, key=lambda i: panel.metric.sign * panel.means[i])
    pairs = [(i, j) for n, i in enumerate(known) for j in known[n + 1 :]]
    values = panel.values
    differences = np.stack([values[:, i] - values[:, j] for i, j in pairs], 1)
    adjusted = holm(sign_flip_test(differences, panel.patients))
    beaten = {
        (set(pair) - {first}).pop()
        for pair, p in zip(pairs, adjusted, strict=True)
        if first in pair and p <= LEVEL
    }
    rest = [i for i in known if i not in beaten]
    if rest == [first]:
        return {panel.methods[first]: "best"}
    return {panel.methods[i]: "top" for i in rest}


def same_network(
    study: Study, metric: Metric, only: Collection[tuple[str, str]] | None = None
) -> list[Contest]:
    """Ours against the other methods on the same networks.

    Args:
        study: whose.
        metric: by which.
        only: tile sets and networks; all when omitted.
    """
    panels = [p for p in study.panels(metric) if only is None or (p.data, p.backbone) in only]
    return _corrected([one for panel in panels for one in _contests(panel, panel)])


def against_twins(study: Study, metric: Metric) -> list[Contest]:
    """Ours against all methods on the twins; none for metrics not to be compared so."""
    if not is_comparable(metric):
        return []
    found: list[Contest] = []
    for panel in study.panels(metric):
        if study.is_ours(panel.backbone):
            for twin in study.twins(panel.backbone):
                other = study.panel(panel.data, twin, metric)
                if other is not None:
                    found += _contests(panel, other)
    return _corrected(found)


def is_comparable(metric: Metric) -> bool:
    """Whether values of two networks may be held against each other."""
    return metric.group in ACROSS or "sds" in metric.name.split("_")


def _contests(panel: Panel, other: Panel) -> Iterable[Contest]:
    """Of all of ours in ``panel`` with all others of ``other``."""
    rivals = [
        i
        for i, name in enumerate(other.methods)
        if not is_control(name) and not (other is panel and is_ours(name))
    ]
    if not rivals:
        return
    for column, name in enumerate(panel.methods):
        if not is_ours(name):
            continue
        mine, theirs, patients = _matched(panel, other)
        if len(patients):
            differences = mine[:, [column]] - theirs[:, rivals]
            estimates: Sequence[Estimate] = group_means(differences, patients)
            p = sign_flip_test(differences, patients)
            pairs = (~np.isnan(differences)).sum(0)
        else:
            gaps = panel.means[column] - other.means[rivals]
            estimates = [Estimate(float(gap), note="of all examples together") for gap in gaps]
            p, pairs = np.full(len(rivals), np.nan), np.zeros(len(rivals), int)
        for i, rival in enumerate(rivals):
            yield Contest(
                panel.metric, panel.data, panel.backbone, name, other.backbone,
                other.methods[rival], estimates[i], float(p[i]), math.nan, int(pairs[i]),
                len(panel.examples),
            )  # fmt: skip


def _matched(
    panel: Panel, other: Panel
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    """Values of both on the examples that both have."""
    if other is panel:
        return panel.values, panel.values, panel.patients
    at = {name: i for i, name in enumerate(other.examples)}
    kept = [i for i, name in enumerate(panel.examples) if name in at]
    there = [at[panel.examples[i]] for i in kept]
    return panel.values[kept], other.values[there], panel.patients[kept]


def _corrected(contests: list[Contest]) -> list[Contest]:
    """Holm over each of ours, over all networks and tile sets."""
    found: list[Contest] = []
    for name in dict.fromkeys(one.ours for one in contests):
        family = [one for one in contests if one.ours == name]
        adjusted = holm([one.p for one in family])
        found += [replace(one, adjusted=float(p)) for one, p in zip(family, adjusted, strict=True)]
    return found
