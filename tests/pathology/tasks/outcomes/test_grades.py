"""Grades: one number of evidence and thresholds in order."""

import itertools

import numpy as np
import pytest
import torch

from pathology.tasks.outcomes import Grades

NAMES = ["benign", "low", "middle", "high"]


@pytest.fixture
def grades():
    outcome = Grades(NAMES).double()
    with torch.no_grad():
        outcome.first.fill_(-0.5)
        outcome.gaps.copy_(torch.tensor([0.25, -1.0]))
    return outcome


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_loss_is_a_question_per_threshold(grades):
    evidence = torch.randn(20, 1, dtype=torch.float64)
    truth = torch.randint(0, 4, (20,))
    thresholds = [-0.5, -0.5 + np.log1p(np.exp(0.25)), 0]
    thresholds[2] = thresholds[1] + np.log1p(np.exp(-1.0))
    by_hand = 0.0
    for e, grade in zip(evidence[:, 0].tolist(), truth.tolist(), strict=True):
        for k, threshold in enumerate(thresholds):
            p = sigmoid(e - threshold)
            by_hand -= np.log(p if grade > k else 1 - p)
    loss = float(grades.loss(evidence, {"grade": truth}).detach())
    assert loss == pytest.approx(by_hand / 20, rel=1e-12)


def test_thresholds_stay_in_order_whatever_is_learnt(grades):
    optimizer = torch.optim.SGD(grades.parameters(), lr=50.0)
    truth = {"grade": torch.tensor([3, 0, 3, 0])}
    # Evidence of the wrong order pulls thresholds across one another.
    evidence = torch.tensor([[-3.0], [3.0], [-2.0], [2.0]], dtype=torch.float64)
    for _ in range(20):
        optimizer.zero_grad()
        grades.loss(evidence, truth).backward()
        optimizer.step()
        assert (grades.thresholds.diff() >= 0).all()
        logits = grades.logits(evidence)
        assert (logits.diff(dim=1) <= 0).all()
        assert (grades.scores(logits) >= 0).all()


def test_probabilities_of_grades_sum_to_one(grades):
    logits = grades.logits(torch.randn(9, 1, dtype=torch.float64))
    assert torch.allclose(grades.scores(logits).sum(1), torch.ones(9, dtype=torch.float64))


def test_a_grade_is_the_number_of_thresholds_climbed(grades):
    low, high = grades.thresholds[0] - 1, grades.thresholds[-1] + 1
    between = grades.thresholds[:2].mean()
    logits = grades.logits(torch.stack([low, between, high])[:, None])
    assert grades.grade(logits).tolist() == [0, 1, 3]


def test_no_evidence_is_the_lowest_grade_to_begin_with():
    outcome = Grades(NAMES)
    assert torch.allclose(outcome.thresholds, torch.arange(3.0))
    assert outcome.scores(outcome.logits(torch.tensor([[-3.0]])))[0, 0] > 0.95


def kappa_by_hand(grade, truth, count):
    """Observed over expected quadratic disagreement, pair by pair."""
    observed = np.mean([(a - b) ** 2 for a, b in zip(grade, truth, strict=True)])
    expected = np.mean([(a - b) ** 2 for a, b in itertools.product(grade, truth)])
    return 1 - observed / expected


def test_quadratic_kappa(grades):
    logits = grades.logits(2 * torch.randn(50, 1, dtype=torch.float64))
    truth = torch.randint(0, 4, (50,))
    found = grades.measure(logits, {"grade": truth})
    grade = grades.grade(logits)
    wanted = kappa_by_hand(grade.tolist(), truth.tolist(), 4)
    assert found["kappa"] == pytest.approx(wanted, abs=1e-6)  # torchmetrics counts in float32
    assert found["mean_error"] == pytest.approx(float((grade - truth).abs().double().mean()))


def test_two_grades_have_one_threshold():
    outcome = Grades(["low", "high"])
    assert outcome.logits(torch.zeros(3, 1)).shape == (3, 1)


def test_half_precision_evidence_meets_thresholds_in_full(grades):
    grades = grades.float()
    evidence = torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16)
    assert grades.logits(evidence).dtype == torch.float32
