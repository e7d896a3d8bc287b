"""What is asked of an image and of that image changed."""

import numpy as np
import pytest

from pathology.map_quality.question import Question

WHITE, GREY = np.ones((2, 2, 3), np.float32), np.full((2, 2, 3), 0.5, np.float32)


def light(images):
    return 4 * images.mean((1, 2, 3))[:, None]


def test_falls_are_of_the_image_minus_the_others():
    question = Question(light, WHITE, 0)
    np.testing.assert_allclose(question.falls([GREY, WHITE]), [2, 0])
    # Of one class alone a probability is the logit's sigmoid.
    fall = 1 / (1 + np.exp(-4)) - 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(question.falls([GREY], "probability"), [fall])


def test_no_more_images_than_a_batch_exist_at_a_time():
    sizes = []

    def score(images):
        sizes.append(len(images))
        return light(images)

    Question(score, WHITE, 0, batch=2).falls([GREY] * 4)
    assert sizes == [2, 2, 1]


def test_a_class_that_the_network_has_not_is_refused():
    with pytest.raises(ValueError, match="one of 1 classes from 0, got 1"):
        Question(light, WHITE, 1).logits([GREY])
