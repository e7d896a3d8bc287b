"""Whether metrics, and trainings from other seeds, put methods in the same order."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control
from pathology.metrics.ranks import kendall_tau


@dataclass(frozen=True, eq=False)
class Agreement:
    """Whether metrics put methods in the same order.

    Args:
        metrics: compared.
        tau: ``(metrics, metrics)`` mean Kendall tau-b over networks and tile sets.
        counts: ``(metrics, metrics)`` how many those are.
    """

    metrics: tuple[Metric, ...]
    tau: NDArray[np.float64]
    counts: NDArray[np.int64]


def agreement(study: Study, metrics: Sequence[Metric]) -> Agreement:
    """Kendall's tau between metrics, over methods without controls, best side up.

    Within each network and tile set, then averaged: a metric that is high on one network and low on
    another must not look as if it agreed.
    """
    size = len(metrics)
    taus: list[list[list[float]]] = [[[] for _ in range(size)] for _ in range(size)]
    for data in study.data:
        for backbone in study.backbones.index:
            panels = [study.panel(data, backbone, metric) for metric in metrics]
            for i, j in itertools.combinations(range(size), 2):
                a, b = panels[i], panels[j]
                if a is None or b is None:
                    continue
                names = [n for n in a.methods if n in b.methods and not is_control(n)]
                tau = kendall_tau(_oriented(a, names), _oriented(b, names))
                if not math.isnan(tau):
                    taus[i][j].append(tau)
                    taus[j][i].append(tau)
    mean = np.array([[np.mean(one) if one else math.nan for one in row] for row in taus])
    mean = mean.reshape(size, size)
    np.fill_diagonal(mean, 1.0)
    counts = np.array([[len(one) for one in row] for row in taus], int).reshape(size, size)
    return Agreement(tuple(metrics), mean, counts)


def _oriented(panel: Panel, names: Sequence[str]) -> NDArray[np.float64]:
    return panel.metric.sign * panel.means[[panel.methods.index(name) for name in names]]


@dataclass(frozen=True, slots=True)
class SeedStability:
    """Whether another training puts methods in the same order.

    Args:
        metric: by which.
        tau: mean over pairs of seeds, networks and tile sets; NaN with one seed.
        lowest: of these.
        count: how many.
    """

    metric: Metric
    tau: float
    lowest: float
    count: int


def seed_stability(study: Study, metrics: Sequence[Metric]) -> list[SeedStability]:
    """Kendall's tau between trainings from different seeds, without controls."""
    found = []
    for metric in metrics:
        taus = []
        for panel in study.panels(metric):
            kept = [i for i, name in enumerate(panel.methods) if not is_control(name)]
            table = panel.seed_means[:, kept]
            taus += [kendall_tau(a, b) for a, b in itertools.combinations(table, 2)]
        known = [tau for tau in taus if not math.isnan(tau)]
        if known:
            found.append(SeedStability(metric, float(np.mean(known)), min(known), len(known)))
    return found
