"""Ordered grades: one number of evidence, and thresholds that it climbs over."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_cohen_kappa

from pathology.tasks.outcomes.classes import check_names
from pathology.tasks.outcomes.outcome import Outcome, precise


class Grades(Outcome):
    """Grades from the lowest up: ``P(grade > k) = sigmoid(evidence - threshold_k)``.

    All questions "is it higher than k?" share one number, and only that is explained: one exact map
    for the grade, whatever it is. The loss is the sum of their binary cross-entropies (CORAL: Cao,
    Mirjalili and Raschka, Pattern Recognition Letters 140, 2020, eq. 4). There thresholds are in
    order once training has converged; here they are at any time, being sums of positive gaps.

    Args:
        classes: names of the grades, from the lowest up.

    Raises:
        ValueError: fewer than two grades.
    """

    targets = ("grade",)
    metric = "kappa"
    outputs = 1

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        check_names(classes)
        self.classes = list(classes)
        # One logit apart to begin with. No evidence is the lowest grade: B-cos logits begin at -3.
        self.first = nn.Parameter(torch.zeros(()))
        self.gaps = nn.Parameter(torch.full((len(classes) - 2,), math.log(math.e - 1)))

    @property
    def thresholds(self) -> Tensor:
        """``(grades - 1,)``, in increasing order: where the next grade becomes the likelier."""
        steps = torch.cat([self.first[None], F.softplus(self.gaps)])
        return steps.cumsum(0)

    def logits(self, outputs: Tensor) -> Tensor:
        """``(bags, 1)`` to ``(bags, grades - 1)``: the logit of each "higher than k"."""
        thresholds = self.thresholds
        # Thresholds are kept in float32; evidence in half precision would be rounded to grades.
        return precise(outputs) - thresholds.to(precise(outputs).dtype)

    def loss(self, outputs: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        logits = self.logits(outputs)
        steps = torch.arange(logits.shape[1], device=logits.device)
        higher = (truth["grade"][:, None] > steps).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, higher, reduction="none").sum(1).mean()

    def scores(self, logits: Tensor) -> Tensor:
        """Probability of each grade, ``(bags, grades)``."""
        higher = F.pad(logits.sigmoid(), (1, 0), value=1.0)
        return higher - F.pad(logits.sigmoid(), (0, 1))

    @staticmethod
    def grade(logits: Tensor) -> Tensor:
        """The grade, ``(bags,)``: how many thresholds the evidence is above."""
        return (logits > 0).sum(1)

    def measure(self, logits: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
        grade, count = self.grade(logits), len(self.classes)
        kappa = multiclass_cohen_kappa(grade, truth["grade"], count, weights="quadratic")
        # Where all bags have one grade, and are given it, chance agrees as well.
        off = (grade - truth["grade"]).abs().double().mean()
        return {"kappa": float(kappa.nan_to_num(0.0)), "mean_error": float(off)}

    def meaning(self, target: int) -> str:
        self._check_target(target)
        return "evidence for a higher grade"
