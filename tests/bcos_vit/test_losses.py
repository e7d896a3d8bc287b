"""One-hot BCE is the sum over classes of each logit's own cross-entropy."""

import math

import pytest
import torch

from bcos_vit.losses import ClassCrossEntropy, LabelBCE, OneHotBCE, balanced_weights
from tests.reference import array, one_hot_bce


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("off_target", [0.0, 0.01, 0.4])
def test_value_follows_the_formula(classes, off_target):
    logits = torch.randn(6, classes, dtype=torch.float64) * 3
    labels = torch.randint(classes, (6,))
    found = OneHotBCE(off_target)(logits, labels).item()
    expected = one_hot_bce(array(logits), labels.tolist(), off_target)
    assert found == pytest.approx(expected, abs=1e-10)


def test_off_labels_default_to_nought():
    logits = torch.tensor([[40.0, -40.0]], dtype=torch.float64)
    assert OneHotBCE()(logits, torch.tensor([0])).item() < 1e-15


def test_the_smallest_loss_is_at_the_off_target():
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        logits[0, 1] = math.log(0.1 / 0.9)
    OneHotBCE(0.1)(logits, torch.tensor([0])).backward()
    assert logits.grad[0, 1].item() == pytest.approx(0, abs=1e-12)
    assert logits.grad[0, 0].item() == pytest.approx(-0.5, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_loss_keeps_the_dtype_of_the_logits(dtype):
    assert OneHotBCE(0.1)(torch.zeros(2, 3, dtype=dtype), torch.tensor([0, 1])).dtype == dtype


@pytest.mark.parametrize("off_target", [-0.1, 0.5, 1.0, math.nan])
def test_off_targets_out_of_range_are_refused(off_target):
    with pytest.raises(ValueError, match=rf"off_target must be in \[0, 0\.5\), got {off_target}"):
        OneHotBCE(off_target)


@pytest.mark.parametrize("loss", [OneHotBCE(), ClassCrossEntropy(0.1), OneHotBCE(0.01, 0.1)])
def test_shares_of_one_class_are_its_index(loss):
    logits = torch.randn(6, 3, dtype=torch.float64)
    labels = torch.randint(3, (6,))
    shares = torch.nn.functional.one_hot(labels, 3).float()
    # The order in which classes are added up may differ.
    torch.testing.assert_close(loss(logits, shares), loss(logits, labels), rtol=0, atol=1e-14)


def test_losses_of_mixed_images_are_mixed():
    logits = torch.randn(1, 3, dtype=torch.float64)
    mixed = torch.tensor([[0.3, 0.0, 0.7]], dtype=torch.float64)
    for loss in (OneHotBCE(), ClassCrossEntropy()):
        ends = [loss(logits, torch.tensor([c])).item() for c in (0, 2)]
        assert loss(logits, mixed).item() == pytest.approx(0.3 * ends[0] + 0.7 * ends[1])


def test_smoothed_bce_has_the_targets_of_smoothed_cross_entropy():
    logits, label, s = torch.randn(1, 4, dtype=torch.float64), torch.tensor([1]), 0.2
    target = torch.full((4,), s / 4, dtype=torch.float64)
    target[1] = 1 - s + s / 4
    p = logits[0].sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).sum()
    assert OneHotBCE(label_smoothing=s)(logits, label).item() == pytest.approx(expected.item())
    expected = -(target * logits[0].log_softmax(0)).sum()
    assert ClassCrossEntropy(s)(logits, label).item() == pytest.approx(expected.item())


def test_smoothed_labels_are_each_a_question_of_its_own():
    logits = torch.randn(2, 3, dtype=torch.float64)
    labels, s = torch.tensor([[1.0, 0, 1], [0, 0, 0]]), 0.2
    target = torch.where(labels == 1, 1 - s / 2, s / 2).double()
    p = logits.sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).sum() / 2
    found = LabelBCE(s)(logits, labels)
    # Labels come as float32 from the data.
    assert found.item() == pytest.approx(expected.item(), abs=1e-7)


@pytest.mark.parametrize("kind", [OneHotBCE, ClassCrossEntropy])
def test_an_image_counts_as_much_as_its_class_in_every_batch(kind):
    logits, weights = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.5, 1.0, 4.0])
    labels = torch.tensor([0, 2, 2, 1])
    each = [kind()(logits[i : i + 1], labels[i : i + 1]).item() for i in range(4)]
    expected = sum(weights[labels[i]].item() * each[i] for i in range(4)) / 4
    assert kind(class_weights=weights)(logits, labels).item() == pytest.approx(expected)


def test_weights_of_labels_count_where_the_label_is():
    logits, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    found = LabelBCE(class_weights=torch.tensor([3.0, 5.0]))(logits, labels)
    assert found.item() == pytest.approx((3 + 1) * math.log(2))


def test_balanced_weights_give_every_class_the_same_and_the_mean_image_one():
    shares = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    weights = balanced_weights(shares)
    torch.testing.assert_close(weights * shares, torch.full((3,), 1 / 3).double())
    with pytest.raises(ValueError, match="every class needs training images"):
        balanced_weights(torch.tensor([1.0, 0.0]))


def test_class_weights_are_no_part_of_the_weights():
    loss = OneHotBCE(class_weights=torch.ones(3))
    assert not loss.state_dict()
    assert loss.to(torch.float64).class_weights.dtype == torch.float64


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, math.nan], [[1.0]]])
def test_class_weights_that_are_not_positive_are_refused(weights):
    with pytest.raises(ValueError, match="class_weights must be positive"):
        LabelBCE(class_weights=torch.tensor(weights))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_label_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=rf"label_smoothing must be in \[0, 1\), got {smoothing}"):
        ClassCrossEntropy(smoothing)
