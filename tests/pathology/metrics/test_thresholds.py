"""Thresholds are the best of all, by trying all."""

import numpy as np
import pandas as pd
import pytest

from pathology.errors import ManifestError
from pathology.metrics import Predictions, choose_thresholds
from tests.pathology.metrics.made import of_classes


def rates(predictions, i, threshold):
    over = predictions.probabilities[:, i] >= threshold
    hit = predictions.codes == i
    return over[hit].mean(), (~over)[~hit].mean()


def test_youden_is_the_best_of_all_thresholds(rng):
    predictions = of_classes(rng, link="sigmoid", decimals=1)
    for i, (name, threshold) in enumerate(choose_thresholds(predictions).items()):
        best = max(sum(rates(predictions, i, t)) for t in predictions.probabilities[:, i])
        assert sum(rates(predictions, i, threshold)) == pytest.approx(best, abs=1e-12), name
        # Rounding cannot move an example over it.
        assert threshold not in predictions.probabilities[:, i]


@pytest.mark.parametrize("wanted", [0.5, 0.9, 1.0])
def test_a_sensitivity_is_reached_by_the_highest_threshold(rng, wanted):
    predictions = of_classes(rng)
    for i, threshold in enumerate(choose_thresholds(predictions, wanted).values()):
        assert rates(predictions, i, threshold)[0] >= wanted
        higher = predictions.probabilities[:, i]
        above = higher[higher > threshold].min() + 1e-12
        assert rates(predictions, i, above)[0] < wanted


def test_nonsense_is_refused(rng):
    for wanted in (0.0, 1.1, np.nan):
        with pytest.raises(ValueError, match="sensitivity must be in"):
            choose_thresholds(of_classes(rng), wanted)
    truth = pd.DataFrame({"label": ["a", "a"]})
    one = Predictions("classes", ["a", "b"], np.zeros((2, 2)), truth)
    with pytest.raises(ManifestError, match=r"no threshold for a: .* got 2 and 0"):
        choose_thresholds(one)
