"""From which probability on an example counts as of a class; chosen on validation only."""

from collections.abc import Mapping

import numpy as np

from pathology.errors import ManifestError
from pathology.metrics.predictions import Predictions
from pathology.metrics.ranking import curves


def choose_thresholds(
    predictions: Predictions, sensitivity: float | None = None
) -> Mapping[str, float]:
    """A probability per class.

    Args:
        predictions: of ``classes`` or ``labels``, on validation.
        sensitivity: the highest threshold that finds at least this share of a class; that of the
            largest sensitivity + specificity (Youden, Cancer 3, 1950) when omitted.

    Returns:
        For each class a threshold midway between two probabilities that occur, so that rounding
        does not decide; examples of at least that probability are of the class.

    Raises:
        ValueError: a sensitivity outside (0, 1].
        ManifestError: a class has no example, or no other class has.
    """
    check_sensitivity(sensitivity)
    chosen = {}
    for name, scores, positive in zip(
        predictions.classes, predictions.probabilities.T, predictions.positive.T, strict=True
    ):
        at, true, false = curves(scores, positive)
        if not positive.any() or positive.all():
            raise ManifestError(
                f"no threshold for {name}: validation needs examples of it and of others, got"
                f" {positive.sum()} and {(~positive).sum()}"
            )
        found, wrong = true / true[-1], false / false[-1]
        if sensitivity is None:
            # Of equally good ones the middle.
            best = np.flatnonzero(found - wrong >= (found - wrong).max() - 1e-12)
            place = int(best[(len(best) - 1) // 2])
        else:
            place = int(np.argmax(found >= sensitivity - 1e-12))
        below = at[place + 1] if place + 1 < len(at) else 0.0
        chosen[name] = float((at[place] + below) / 2)
    return chosen


def check_sensitivity(sensitivity: float | None) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: it is outside (0, 1].
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must be in (0, 1], got {sensitivity}")


def rule_name(sensitivity: float | None) -> str:
    """How the choice is called."""
    return "Youden" if sensitivity is None else f"sensitivity {sensitivity:g}"
