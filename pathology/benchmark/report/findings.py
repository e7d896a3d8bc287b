"""What follows from a study's numbers, found once: tests, alarms, agreement."""

from dataclasses import dataclass
from functools import cached_property

from pathology.benchmark.report.agreement import Agreement, SeedStability, agreement, seed_stability
from pathology.benchmark.report.alarms import Alarm, alarms
from pathology.benchmark.report.contests import Contest, against_twins, same_network
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.study import Study


@dataclass(frozen=True, eq=False)
class Findings:
    """Of the headline metrics of a study.

    Args:
        study: whose.
    """

    study: Study

    @cached_property
    def same(self) -> dict[Metric, list[Contest]]:
        """Contests on the same networks by metric."""
        return {metric: same_network(self.study, metric) for metric in self.study.headline}

    @cached_property
    def twins(self) -> dict[Metric, list[Contest]]:
        """Contests against twins by metric."""
        return {metric: against_twins(self.study, metric) for metric in self.study.headline}

    @cached_property
    def alarms(self) -> list[Alarm]:
        """Controls that do what they must not."""
        return alarms(self.study, self.study.headline)

    @cached_property
    def agreed(self) -> Agreement:
        """Whether metrics order methods alike."""
        return agreement(self.study, self.study.headline)

    @cached_property
    def stable(self) -> list[SeedStability]:
        """Whether other trainings do."""
        return seed_stability(self.study, self.study.headline)
