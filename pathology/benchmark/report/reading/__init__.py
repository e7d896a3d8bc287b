"""What the numbers say, in sentences: each by a rule from a test, each with its numbers.

No adjective stands without a number. Where the B-cos maps lose is said as plainly as where they
win, and before it.
"""

from pathology.benchmark.report.findings import Findings
from pathology.benchmark.report.metric import SLIDES
from pathology.benchmark.report.reading.maps import by_metric, lead
from pathology.benchmark.report.reading.measurement import (
    agreement,
    broken,
    few,
    missing,
    stability,
)
from pathology.benchmark.report.reading.networks import networks, shares, weak
from pathology.benchmark.report.reading.planted import planted
from pathology.benchmark.report.reading.sentence import Sentence

__all__ = ["Sentence", "reading"]


def reading(findings: Findings) -> list[Sentence]:
    """The page's first paragraph; rules as of each function here."""
    study, alarms = findings.study, findings.alarms
    leads: list[Sentence] = []
    found: list[Sentence] = []
    for is_slides in (False, True):
        for contests, where in ((findings.same, "the same network"), (findings.twins, "the twin")):
            part = {m: c for m, c in contests.items() if (m.group == SLIDES) == is_slides}
            subject = "Contributions of tiles" if is_slides else "B-cos maps"
            leads += lead(part, subject, where, alarms)
            found += by_metric(study, part, subject, where)
    found += planted(study)
    found += networks(study)
    about = [
        *weak(study), *few(study, findings.same, findings.twins),
        *stability(study, findings.stable), *agreement(findings.agreed), *missing(study),
    ]  # fmt: skip
    return [
        *leads,
        *(one for one in found if one.kind == "worse"),
        *broken(alarms, study),
        *(one for one in about if one.kind == "warn"),
        *(one for one in found if one.kind != "worse"),
        *shares(study),
        *(one for one in about if one.kind != "warn"),
    ]
