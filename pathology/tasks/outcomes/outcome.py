"""What every outcome offers."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
from torch import Tensor, nn

from pathology.metrics.survival import Concordance


class Outcome(nn.Module):
    """What is predicted of a bag from the numbers that an aggregator makes of it.

    An aggregator's outputs are what explanations are of; ``logits`` makes of them what is reported.
    """

    targets: ClassVar[tuple[str, ...]]
    """Entries of a batch that the loss looks at."""
    metric: ClassVar[str]
    """Name of the metric that tells the best epoch; larger is better."""
    whole_batch: ClassVar[bool] = False
    """Whether a bag's loss depends on the others of the batch, on whatever device they are."""
    outputs: int
    """Numbers that an aggregator has to make."""

    def fit(self, truth: pd.DataFrame) -> None:
        """Learn what has to be known of the training part before training starts.

        Args:
            truth: a row per bag, see ``BagDataModule.truth``.

        Raises:
            ManifestError: it cannot be learnt from these.
        """

    def loss(self, outputs: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            outputs: ``(bags, outputs)`` of an aggregator.
            truth: the batch's ``targets``, ``(bags,)`` or ``(bags, classes)`` each.
        """
        raise NotImplementedError

    def logits(self, outputs: Tensor) -> Tensor:
        """What is reported of an aggregator's ``(bags, outputs)``: ``(bags, logits)``."""
        return outputs

    def scores(self, logits: Tensor) -> Tensor:
        """Logits as probabilities ``(bags, classes)``, or as risk ``(bags,)``."""
        raise NotImplementedError

    def measure(self, logits: Tensor, truth: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics of a whole split, ``metric`` among them.

        Args:
            logits: ``(bags, logits)``, float64.
            truth: the split's ``targets``.
        """
        raise NotImplementedError

    def meaning(self, target: int) -> str:
        """In words, what output ``target`` of an aggregator argues for when it is explained.

        Raises:
            ValueError: no such output.
        """
        raise NotImplementedError

    def _check_target(self, target: int) -> None:
        if not 0 <= target < self.outputs:
            raise ValueError(f"target must be in [0, {self.outputs}), got {target}")


def precise(outputs: Tensor) -> Tensor:
    """At least float32: sums of exponentials are no place for half precision."""
    return outputs.float() if outputs.element_size() < 4 else outputs


def concordance(risk: Tensor, truth: Mapping[str, Tensor]) -> float:
    """C-index of risks ``(bags,)`` with ``time`` and ``event``; NaN where none can be compared."""
    time = truth["time"].double().numpy()
    index = Concordance(risk.numpy(), time, truth["event"].numpy() > 0)
    return float(index(np.ones((1, len(time))))[0])
