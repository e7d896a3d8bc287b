"""SaCo: by hand, and 1 for the exact map."""

import numpy as np
import pytest

from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Colour
from pathology.map_quality.saco import saco
from tests.pathology.map_quality.planted import PALE, contestants, plant


def test_by_hand(rng):
    image = np.ones((1, 3, 3), np.float32)
    # Falls of the three pixels: 1, 3, 2; the map says 5, 2, 1.
    weights = np.array([[1.0, 3.0, 2.0]])

    def score(images):
        return (images.mean(-1, dtype=np.float64) * weights).sum((1, 2))[:, None]

    values = np.array([[5.0, 2.0, 1.0]])
    found = saco(
        Question(score, image, 0), values, rng, groups=3, fill=Colour((0, 0, 0)), quantity="logit"
    )
    np.testing.assert_allclose(found.influence, [1, 3, 2])
    # Pairs: 5 over 2 wrong (3), 5 over 1 wrong (4), 2 over 1 right (1).
    assert found.value == pytest.approx((-3 - 4 + 1) / 8)


def test_the_exact_map_beats_chance_beats_its_opposite(rng):
    planted = plant(rng)
    best, _, worst = (
        saco(planted.question(), one, rng, fill=PALE).value for one in contestants(planted, rng)
    )
    chances = [
        saco(planted.question(), rng.normal(size=(16, 16)), rng, fill=PALE).value for _ in range(50)
    ]
    assert best == pytest.approx(1)
    assert worst == pytest.approx(-1)
    # A value of chance scatters by about 0.5; the mean of fifty by 0.07.
    assert abs(np.mean(chances)) < 0.3


def test_undefined_says_why(rng):
    planted = plant(rng)
    constant = saco(planted.question(), np.ones((16, 16)), rng)
    assert np.isnan(constant.value)
    assert constant.note == "the map is constant"
    still = saco(planted.question(0), planted.map, rng, quantity="logit")
    assert np.isnan(still.value)
    assert still.note == "removing any group does the same"
    with pytest.raises(ValueError, match="groups must be"):
        saco(planted.question(), planted.map, rng, groups=1)
