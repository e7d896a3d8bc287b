"""One of several classes, or any of several labels."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bcos_vit.losses import OneHotBCE
from pathology.metrics.ranking import Ranking
from pathology.tasks.outcomes.outcome import Outcome, precise

ClassLoss = Literal["bce", "ce"]


class Classes(Outcome):
    """One class per bag, a logit each.

    Args:
        classes: their names.
        loss: ``bce`` rewards evidence for the true class by itself, as B-cos models need it to keep
            maps class-specific; ``ce`` rewards its lead over the others.

    Raises:
        ValueError: fewer than two classes, or no such loss.
    """

    targets = ("label",)
    metric = "auroc"

    def __init__(self, classes: Sequence[str], loss: ClassLoss = "bce") -> None:
        super().__init__()
        check_names(classes)
        if loss not in ("bce", "ce"):
            raise ValueError(f"loss must be bce or ce, got {loss!r}")
        self.classes, self.outputs = list(classes), len(classes)
        self.loss_name = loss
        self._bce = OneHotBCE()

    def loss(self, outputs: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        outputs = precise(outputs)
        if self.loss_name == "bce":
            loss: Tensor = self._bce(outputs, truth["label"])
            return loss
        return F.cross_entropy(outputs, truth["label"])

    def scores(self, logits: Tensor) -> Tensor:
        """Independent (sigmoid) after ``bce``, exclusive (softmax) after ``ce``."""
        return logits.sigmoid() if self.loss_name == "bce" else logits.softmax(-1)

    def measure(self, logits: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
        # Only differences between logits tell classes apart; of two, both logits may be high.
        odds = logits - _rest(logits)
        positive = F.one_hot(truth["label"], self.outputs).bool()
        right = logits.argmax(1)[:, None] == truth["label"][:, None]
        recall = (right & positive).sum(0).double() / positive.sum(0)
        return {
            "auroc": _mean_auroc(odds.numpy(), positive.numpy()),
            "balanced_accuracy": float(recall.mean()),
        }

    def meaning(self, target: int) -> str:
        self._check_target(target)
        return f"logit of {self.classes[target]}"


class Labels(Outcome):
    """Any number of labels per bag: binary cross-entropy of a logit each.

    Args:
        classes: names of the labels.

    Raises:
        ValueError: no label.
    """

    targets = ("label",)
    metric = "auroc"

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        check_names(classes, least=1)
        self.classes, self.outputs = list(classes), len(classes)

    def loss(self, outputs: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        outputs = precise(outputs)
        target = truth["label"].to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, target, reduction="none").sum(1).mean()

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def measure(self, logits: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
        return {"auroc": _mean_auroc(logits.numpy(), truth["label"].bool().numpy())}

    def meaning(self, target: int) -> str:
        self._check_target(target)
        return f"logit of {self.classes[target]}"


def check_names(classes: Sequence[str], least: int = 2) -> None:
    """Refuse names that are too few or that are there twice.

    Raises:
        ValueError: saying which.
    """
    if len(set(classes)) != len(classes) or len(classes) < least:
        raise ValueError(f"classes must be at least {least} different names, got {list(classes)}")


def _rest(logits: Tensor) -> Tensor:
    """Logarithm of the summed exponentials of all other classes, ``(bags, classes)``."""
    count = logits.shape[1]
    own = torch.eye(count, dtype=torch.bool)
    return logits[:, None].expand(-1, count, -1).masked_fill(own, -torch.inf).logsumexp(2)


def _mean_auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """AUROC of each class against the rest, averaged; NaN if any has none."""
    ones = np.ones(len(scores))
    areas = [Ranking(scores[:, i], positive[:, i])(ones).auroc for i in range(scores.shape[1])]
    return float(np.mean(areas))
