"""Where a control does what it must not, so that a metric says nothing there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control, role


@dataclass(frozen=True, slots=True)
class Alarm:
    """A control that does what it must not.

    Args:
        metric: that does not separate here.
        data: name of the tile set.
        backbone: name of the network.
        control: its name.
        rank: of the control among the methods.
        methods: how many those are, with it.
    """

    metric: Metric
    data: str
    backbone: str
    control: str
    rank: int
    methods: int


def alarms(study: Study, metrics: Sequence[Metric]) -> list[Alarm]:
    """Random in the upper half of a ranking, or any other blind map ahead of all methods.

    The oracle is left alone: it is the truth about masks, not about a network.
    """
    found = []
    for metric in metrics:
        for panel in study.panels(metric):
            scores = metric.sign * panel.means
            rivals = [
                scores[i]
                for i, name in enumerate(panel.methods)
                if not is_control(name) and not math.isnan(scores[i])
            ]
            for name, score in zip(panel.methods, scores, strict=True):
                if (
                    not is_control(name)
                    or role(name) == "oracle"
                    or math.isnan(score)
                    or not rivals
                ):
                    continue
                rank = 1 + sum(one > score for one in rivals)
                worst = (len(rivals) + 1) / 2 if role(name) == "random" else 1
                if rank <= worst:
                    found.append(
                        Alarm(metric, panel.data, panel.backbone, name, rank, len(rivals) + 1)
                    )
    return found
