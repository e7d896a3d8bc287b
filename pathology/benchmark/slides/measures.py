"""The measures of explanations of slides, and a slide that is ready to be asked."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pathology.aggregators.aggregator import Aggregator
from pathology.benchmark.slides.bag_logits import BagLogits
from pathology.benchmark.slides.bags import SlideBag
from pathology.benchmark.study.rows import Better, Value

GROUP = "slides"
TARGET = 0
"""The only output: whether there is a lesion."""
TOP = 20
"""Tiles of which the share in lesion is told."""
REFUSED = "refused"
"""Row of a method that is undefined on an aggregator."""


class Measure(NamedTuple):
    """How a measure is read."""

    unit: str = ""
    better: Better = "higher"
    headline: bool = False


MEASURES: dict[str, Measure] = {
    # of an aggregator
    "AUROC of slides": Measure(),
    "balanced accuracy of slides": Measure(),
    "slide is called rightly": Measure("share"),
    "minimal sufficient set": Measure("tiles", "lower"),
    "minimal sufficient set, in lesion": Measure("share"),
    "minimal sufficient set, forward passes saved": Measure("", "none"),
    "minimal necessary set": Measure("tiles", "lower"),
    "minimal necessary set, in lesion": Measure("share"),
    "minimal necessary set, forward passes saved": Measure("", "none"),
    "probability of a small lesion": Measure(),
    "logit of a small lesion": Measure("logit"),
    "small lesion is found": Measure("share"),
    # of a method
    REFUSED: Measure("", "none"),
    "ABPC of tile flipping, probability": Measure("", "higher", True),
    "ABPC of tile flipping, logit": Measure("logit"),
    "AUPC of tile flipping, probability": Measure("", "lower"),
    "AUPC of tile flipping, logit": Measure("logit", "lower"),
    "necessity of top tiles": Measure("", "higher", True),
    "necessity of top tiles, logit": Measure("logit"),
    "sufficiency of top tiles": Measure("", "higher", True),
    "sufficiency of top tiles, logit": Measure("logit"),
    "AP of lesion tiles": Measure(),
    "AUROC of lesion tiles": Measure(),
    "rank accuracy of lesion tiles": Measure(),
    f"top {TOP} tiles in lesion": Measure("share"),
    "FROC of lesions": Measure("", "higher", True),
    "forward passes": Measure("", "lower"),
    "backward passes": Measure("", "lower"),
}
"""Top tiles are as many as are lesion; their necessity is what the slide loses without them, their
sufficiency what slides without a lesion gain with them."""


def value_of(
    metric: str,
    value: float,
    *,
    method: str = "",
    example: str = "",
    stratum: str = "",
    note: str = "",
    low: float = float("nan"),
    high: float = float("nan"),
) -> Value:
    """A value of one of :data:`MEASURES`; an example is its patient's only slide."""
    unit, better, headline = MEASURES[metric]
    return Value(
        metric, float(value), GROUP, example=example, patient=example, stratum=stratum, low=low,
        high=high, unit=unit, better=better, headline=headline, note=note, method=method,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class AskedSlide:
    """A slide with its aggregator's answers.

    Args:
        bag: the slide.
        features: ``(N, D)`` as the aggregator takes them.
        logits: of its subsets.
        whole: the logit of all of it.
    """

    bag: SlideBag
    features: Tensor
    logits: BagLogits
    whole: float

    @property
    def is_missed(self) -> bool:
        """Whether it has a lesion and is not called positive."""
        return bool(self.bag.label) and self.whole < 0


def ask(aggregator: Aggregator, bag: SlideBag, scale: float) -> AskedSlide:
    """A slide ready to be asked.

    Args:
        aggregator: with one output, in eval mode.
        bag: the slide.
        scale: that features are divided by.
    """
    weights = next(aggregator.parameters())
    features = (bag.features / scale).to(weights.device, torch.float32)
    logits = BagLogits(aggregator, features)
    return AskedSlide(bag, features, logits, float(logits.whole()[TARGET]))
