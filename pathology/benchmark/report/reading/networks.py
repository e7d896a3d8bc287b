"""What networks do, what they cost, and where their logits are."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from pathology.benchmark.report.differences import backbone_difference
from pathology.benchmark.report.metric import COST
from pathology.benchmark.report.numbers import number, signed
from pathology.benchmark.report.reading.sentence import Kind, Sentence, listed
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control

WEAK = 0.6
"""Below this balanced accuracy a network is said to know little; of two classes 0.5 is chance."""
ABOUT_NETWORKS = ("balanced_accuracy", "auroc", "ece")


def networks(study: Study) -> Iterator[Sentence]:
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
        yield Sentence(f"Their cost as a multiple of the twins': {listed(costs)}.")


def weak(study: Study) -> Iterator[Sentence]:
    """Networks that hardly learnt: there is little for their maps to explain.

    Where a mark is planted, half of the test tiles have it against their class: a network that
    learnt the mark, as it was meant to, is right about the others only.
    """
    marked = {
        panel.data
        for metric in study.metrics()
        if metric.group == "confounder"
        for panel in study.panels(metric)
    }
    found = [
        f"{panel.backbone} on {panel.data} ({number(float(panel.means[0]))})"
        for metric in study.backbone_metrics
        if metric.name == "balanced_accuracy"
        for panel in study.panels(metric)
        if panel.means[0] < WEAK and panel.data not in marked
    ]
    if found:
        yield Sentence(
            f"Balanced accuracy below {WEAK:g}: {listed(found)}. Maps of a network that knows"
            " little explain little, and beating them says little.",
            "warn",
        )


def shares(study: Study) -> Iterator[Sentence]:
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
                    f"{metric.title}, mean and range over networks and sets: {listed(parts)}; what"
                    " is missing is position codes, tokens, biases, logits of baselines and what"
                    " does not add up.",
                )


def _range(values: Sequence[float]) -> str:
    """Mean, and ends where they differ."""
    mean, low, high = map(number, (float(np.mean(values)), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"
