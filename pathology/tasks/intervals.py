"""Metrics of predictions with bootstrap intervals over patients, or images where none are known."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_f1_score,
    multiclass_recall,
)

Metric = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]

METRICS: dict[str, Metric] = {
    "auroc": lambda scores, labels, n: multiclass_auroc(scores, labels, n),
    "balanced_accuracy": lambda scores, labels, n: multiclass_recall(
        scores, labels, n, average="macro"
    ),
    "f1": lambda scores, labels, n: multiclass_f1_score(scores, labels, n, average="macro"),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its percentile bootstrap interval; NaN where none can be drawn."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval: one group)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def measure(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    groups: NDArray[np.generic] | None = None,
    *,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """AUROC (macro, one against rest), balanced accuracy and macro F1 with intervals.

    Args:
        logits: ``(n, classes)``; classes are ranked by their softmax.
        labels: ``(n,)`` class indices.
        groups: ``(n,)`` what is drawn as a whole, e.g. patients; each image by itself when omitted.
        repeats: bootstrap samples.
        level: of the interval.
        seed: of the sampling.

    Raises:
        ValueError: a class without any image, for which no AUROC exists.
    """
    count, classes = logits.shape
    missing = np.setdiff1d(np.arange(classes), labels)
    if len(missing):
        raise ValueError(f"no image of class index {missing[0]} among {count}; nothing to measure")
    scores = torch.from_numpy(np.asarray(logits, dtype=np.float64)).softmax(-1)
    truth = torch.tensor(np.asarray(labels, dtype=np.int64))  # a copy: what comes may be read-only
    _, owner = np.unique(np.arange(count) if groups is None else groups, return_inverse=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    if len(members) < 2:
        # Drawing the only group again and again would give an interval without width.
        repeats = 0
    random = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {name: [] for name in METRICS}
    while len(samples["auroc"]) < repeats:
        drawn = np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        if len(np.unique(labels[drawn])) < classes:
            continue  # the metric does not exist on such a sample
        chosen = torch.from_numpy(drawn)
        for name, metric in METRICS.items():
            samples[name].append(float(metric(scores[chosen], truth[chosen], classes)))
    tail = (1 - level) / 2
    return {
        name: Estimate(
            float(metric(scores, truth, classes)),
            *(float(q) for q in np.quantile(samples[name] or [np.nan], [tail, 1 - tail])),
        )
        for name, metric in METRICS.items()
    }
