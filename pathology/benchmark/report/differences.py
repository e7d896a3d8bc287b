"""What a B-cos network does and costs more than its twin."""

import math
from dataclasses import dataclass

from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.study import Study
from pathology.metrics.bootstrap import Estimate
from pathology.metrics.comparison import group_means, sign_flip_test


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
