"""What predictions are worth, with intervals."""

from pathology.metrics.bootstrap import Estimate
from pathology.metrics.calibration import Calibration, apply_calibration, fit
from pathology.metrics.measures import measure
from pathology.metrics.predictions import Outcome, Predictions
from pathology.metrics.thresholds import choose_thresholds

__all__ = [
    "Calibration",
    "Estimate",
    "Outcome",
    "Predictions",
    "apply_calibration",
    "choose_thresholds",
    "fit",
    "measure",
]
