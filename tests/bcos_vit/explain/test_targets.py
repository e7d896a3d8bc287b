"""The target is a class for all images, one per image, or each image's own prediction."""

import numpy as np
import pytest
import torch

from bcos_vit.explain import explain


def test_the_predicted_class_is_explained_when_none_is_named(tiny_vit):
    images = torch.rand(32, 6, 4, 4, dtype=torch.float64)
    explanation = explain(tiny_vit, images)
    assert torch.equal(explanation.target, tiny_vit(images).argmax(1))
    assert len(explanation.target.unique()) > 1


@pytest.mark.parametrize(
    "target",
    [2, np.int64(2), torch.tensor(2), [2, 2, 2, 2], (2, 2, 2, 2), torch.tensor([2, 2, 2, 2])],
    ids=lambda target: type(target).__name__,
)
def test_one_class_may_be_named_in_many_ways(tiny_vit, images, target):
    explanation = explain(tiny_vit, images, target)
    assert explanation.target.dtype == torch.int64
    assert explanation.target.tolist() == [2, 2, 2, 2]
    assert torch.equal(explanation.weights, explain(tiny_vit, images, 2).weights)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
@pytest.mark.parametrize("dtype", [None, torch.uint8, torch.int32])
def test_each_image_may_have_its_own(tiny_vit, images, kind, dtype):
    target = kind([2, 0, 1, 0])
    if dtype is not None:
        target = torch.tensor([2, 0, 1, 0], dtype=dtype)
    explanation = explain(tiny_vit, images, target)
    for i, c in enumerate([2, 0, 1, 0]):
        expected = explain(tiny_vit, images, c).weights[i]
        torch.testing.assert_close(explanation.weights[i], expected, rtol=0, atol=1e-12)


def test_changing_the_target_afterwards_changes_no_explanation(tiny_vit, images):
    target = torch.tensor([2, 0, 1, 0])
    explanation = explain(tiny_vit, images, target)
    target.fill_(0)
    assert explanation.target.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("target", [3, -1, [0, 1, 2, 3], torch.tensor([0, -1, 0, 0])])
def test_classes_that_do_not_exist_are_refused(tiny_vit, images, target):
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\), got (3|-1)$"):
        explain(tiny_vit, images, target)


@pytest.mark.parametrize("target", [[0], [0, 1, 2], [[0, 1, 2, 0]], [[0], [1], [2], [0]]])
def test_other_lengths_are_refused(tiny_vit, images, target):
    with pytest.raises(ValueError, match="target must be one index, or 4, got shape"):
        explain(tiny_vit, images, target)


@pytest.mark.parametrize("target", [1.0, [0.0, 1, 2, 0], torch.rand(4), True, torch.ones(4) > 0])
def test_numbers_that_are_no_indices_are_refused(tiny_vit, images, target):
    with pytest.raises(TypeError, match=r"target must be class indices, got torch\."):
        explain(tiny_vit, images, target)
