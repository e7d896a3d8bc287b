"""AUPRC-2: scikit-learn's average precision, for and against, bag by bag."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from pathology.benchmark.key_tiles import average_precision, key_tile_precision


def slow(scores, evidence):
    parts = []
    for sign in (1, -1):
        relevant = evidence == sign
        if 0 < relevant.sum() < len(relevant):
            parts.append(average_precision_score(relevant, sign * scores))
    return np.mean(parts) if parts else np.nan


@pytest.mark.parametrize("levels", [1000, 4])  # 4: many ties
def test_as_scikit_learn(levels):
    scores = torch.randint(levels, (60, 9)).double()
    evidence = torch.randint(-1, 2, (60, 9))
    evidence[0] = 0
    evidence[1] = 1
    evidence[2] = evidence[2].clamp_min(0)
    expected = [slow(s.numpy(), e.numpy()) for s, e in zip(scores, evidence, strict=True)]
    found = key_tile_precision(scores, evidence)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    assert found[:2].isnan().all()


def test_right_order_is_one_and_the_opposite_is_worse():
    evidence = torch.tensor([[1, 1, 0, 0, -1]])
    assert key_tile_precision(evidence.double(), evidence).item() == 1
    # by hand: for, tiles at ranks 4 and 5 of 5; against, the one tile at rank 5
    worst = ((1 / 4 + 2 / 5) / 2 + 1 / 5) / 2
    scores = torch.tensor([[1.0, 0.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    assert key_tile_precision(scores, evidence).item() == pytest.approx(worst, abs=1e-12)


def test_attention_cannot_tell_for_from_against():
    evidence = torch.tensor([[1, -1, 0, 0]])
    attention = evidence.abs().double()
    # both key tiles tie at the top: 1/2 for; by -attention the tile against ties at the bottom: 1/4
    assert key_tile_precision(attention, evidence).item() == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="got NaN"):
        average_precision(torch.tensor([[1.0, torch.nan]]), torch.tensor([[True, False]]))
