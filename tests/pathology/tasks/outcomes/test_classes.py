"""Classes and labels: losses and AUROC against sums and pairs written out."""

import itertools

import numpy as np
import pytest
import torch

from pathology.tasks.outcomes import make_outcome


def pairs_auroc(scores, positive):
    """Share of pairs in the right order, one by one."""
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.fixture
def outputs():
    return torch.randn(12, 3, dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2, 2])


def test_bce_rewards_each_logit_by_itself(outputs):
    loss = make_outcome("classes", ["a", "b", "c"]).loss(outputs, {"label": LABELS})
    by_hand = [
        -sum(log_sigmoid(x if c == label else -x) for c, x in enumerate(row))
        for row, label in zip(outputs.numpy(), LABELS, strict=True)
    ]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-12)


def test_ce_rewards_the_lead(outputs):
    loss = make_outcome("classes", ["a", "b", "c"], loss="ce").loss(outputs, {"label": LABELS})
    rows = outputs.numpy()
    by_hand = [
        np.log(np.exp(row).sum()) - row[label] for row, label in zip(rows, LABELS, strict=True)
    ]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-12)


def test_classes_are_measured_by_their_odds(outputs):
    outcome = make_outcome("classes", ["a", "b", "c"])
    found = outcome.measure(outputs, {"label": LABELS})
    shares = torch.softmax(outputs, 1).numpy()
    labels = LABELS.numpy()
    wanted = [pairs_auroc(shares[:, c], labels == c) for c in range(3)]
    assert found["auroc"] == pytest.approx(np.mean(wanted), rel=1e-12)
    recalls = [np.mean(shares.argmax(1)[labels == c] == c) for c in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls), rel=1e-12)


def test_saturated_logits_still_rank():
    # As probabilities both are 1.
    logits = torch.tensor([[0.0, 50.0], [0.0, 60.0]], dtype=torch.float64)
    found = make_outcome("classes", ["a", "b"]).measure(logits, {"label": torch.tensor([0, 1])})
    assert found["auroc"] == 1.0


def test_any_of_several_labels(outputs):
    outcome = make_outcome("labels", ["a", "b", "c"])
    has = (torch.rand(12, 3) < 0.5).float()
    loss = outcome.loss(outputs, {"label": has})
    by_hand = [
        -sum(log_sigmoid(x if h else -x) for x, h in zip(row, wanted, strict=True))
        for row, wanted in zip(outputs.numpy(), has, strict=True)
    ]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-12)
    areas = [pairs_auroc(outputs[:, c].numpy(), has[:, c].bool().numpy()) for c in range(3)]
    assert outcome.measure(outputs, {"label": has})["auroc"] == pytest.approx(np.mean(areas))
    assert torch.equal(outcome.scores(outputs), outputs.sigmoid())


def test_what_a_target_means():
    outcome = make_outcome("classes", ["normal", "tumour"])
    assert outcome.meaning(1) == "logit of tumour"
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\)"):
        outcome.meaning(2)


@pytest.mark.parametrize(
    ("name", "classes", "options", "message"),
    [
        ("class", ["a", "b"], {}, "outcome must be one of"),
        ("classes", ["a"], {}, "at least 2 different"),
        ("classes", ["a", "a"], {}, "at least 2 different"),
        ("classes", ["a", "b"], {"loss": "mse"}, "loss must be"),
        ("labels", [], {}, "at least 1"),
        ("cox", ["a", "b"], {}, "has no classes"),
        ("cox", [], {"ties": "exact"}, "ties must be"),
        ("hazard", [], {"intervals": 1}, "at least 2"),
    ],
)
def test_nonsense_is_refused(name, classes, options, message):
    with pytest.raises(ValueError, match=message):
        make_outcome(name, classes, **options)
