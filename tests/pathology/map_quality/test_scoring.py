"""What metrics ask of a network: a few images at a time, and probabilities of both kinds."""

import numpy as np
import pytest

from pathology.map_quality.scoring import ask, probability, said


def test_no_more_images_exist_than_are_asked_for():
    made = asked = 0

    def images():
        nonlocal made
        for light in range(7):
            made += 1
            assert made - asked <= 3
            yield np.full((2, 2, 3), light / 10, np.float32)

    def score(some):
        nonlocal asked
        asked += len(some)
        return some.mean((1, 2, 3))[:, None]

    logits = ask(score, images(), batch=3)
    np.testing.assert_allclose(logits[:, 0], np.arange(7) / 10, atol=1e-6)
    assert logits.dtype == np.float64


def test_probabilities():
    logits = np.array([[0.0, np.log(3)], [1000.0, 0.0]])
    np.testing.assert_allclose(probability(logits, 1), [0.75, 0], atol=1e-300)
    np.testing.assert_allclose(probability(logits, 1, "sigmoid"), [0.75, 0.5])
    # Of one class a softmax would say 1 whatever the logit.
    np.testing.assert_allclose(probability(np.array([[np.log(3)]]), 0), [0.75])
    with pytest.raises(ValueError, match="squash must be"):
        probability(logits, 1, "sparsemax")
    with pytest.raises(ValueError, match="quantity must be"):
        said(logits, 1, "odds")
    with pytest.raises(ValueError, match="one of 2 classes"):
        said(logits, -1, "logit")
