"""One-hot BCE is the sum over classes of each logit's own cross-entropy."""

import math

import pytest
import torch

from bcos_vit.losses import OneHotBCE
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
