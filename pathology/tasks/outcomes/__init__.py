"""What is predicted of a bag: its loss, its metric while training, and what its logits mean."""

from collections.abc import Sequence
from typing import get_args

from pathology.data.truth import OutcomeName
from pathology.tasks.outcomes.classes import Classes, ClassLoss, Labels
from pathology.tasks.outcomes.cox import Cox, Ties
from pathology.tasks.outcomes.grades import Grades
from pathology.tasks.outcomes.hazard import Hazard
from pathology.tasks.outcomes.outcome import Outcome

__all__ = [
    "ClassLoss", "Classes", "Cox", "Grades", "Hazard", "Labels", "Outcome", "Ties", "make_outcome",
]  # fmt: skip


def make_outcome(
    name: OutcomeName,
    classes: Sequence[str] = (),
    *,
    loss: ClassLoss = "bce",
    ties: Ties = "efron",
    intervals: int = 4,
) -> Outcome:
    """The outcome of this name.

    Args:
        name: classes, labels, grades, cox or hazard.
        classes: names of classes, labels or grades (these from the lowest up).
        loss: of classes, see :class:`Classes`.
        ties: of cox, see :class:`Cox`.
        intervals: of hazard, see :class:`Hazard`.

    Raises:
        ValueError: no such outcome, or classes that it does not have or lacks.
    """
    if name not in get_args(OutcomeName):
        raise ValueError(f"outcome must be one of {', '.join(get_args(OutcomeName))}; got {name!r}")
    if name in ("cox", "hazard"):
        if classes:
            raise ValueError(f"outcome {name} has no classes; got {', '.join(classes)}")
        return Cox(ties) if name == "cox" else Hazard(intervals)
    if name == "classes":
        return Classes(classes, loss)
    return Labels(classes) if name == "labels" else Grades(classes)
