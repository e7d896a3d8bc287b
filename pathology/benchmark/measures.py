"""What is measured of a model, each beside what it costs more than: a table of functions.

Explanations are measured in forward passes of the model's own: the way down to the pixels is a
backward pass through the same layers, so that its cost over a forward pass says more than over
another network's.
"""

import copy
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bcos_vit.explain import explain, explain_classes
from pathology.benchmark.contender import MODES, Contender, grid_side
from pathology.benchmark.memory import kept_mib, peak_mib
from pathology.benchmark.timing import WARM_UP, Ratio, Run, take_turns


@dataclass(frozen=True, slots=True)
class Pair:
    """A model and its twin, and how much work to spend on them.

    Args:
        ours: the B-cos model.
        twin: the conventional network of the same depth and width.
        budget_s: seconds to spend on times, about.
        classes: how many to explain where it is several.
    """

    ours: Contender
    twin: Contender
    budget_s: float
    classes: int

    def train(self, training: bool = True) -> None:
        """Set both networks' mode."""
        for contender in (self.ours, self.twin):
            contender.network.train(training)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much something costs, and how much what it is compared with.

    Args:
        unit: of both, ``"s"`` or ``"MiB"``.
        ours, theirs: for the whole batch; medians of times.
        ours_per_image, theirs_per_image: for each image.
        ratio: of ours to theirs.
        repetitions: how often each was measured.
        depth: that was explained down to.
    """

    unit: str
    ours: float
    theirs: float
    ours_per_image: float
    theirs_per_image: float
    ratio: Ratio
    repetitions: int
    depth: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure.

    Args:
        title: what it is, in a line.
        peer: what a model is compared with: ``"twin"``, or something of its own.
        compare: measures both.
        modes: in which it is measured.
        classes: how many are explained; ``None`` for as many as were asked for.
    """

    title: str
    peer: str
    compare: Callable[[Pair], Comparison]
    modes: Sequence[str] = ("eager",)
    classes: str | None = ""


def _times(pair: Pair, ours: Run, theirs: Run, depth: str = "") -> Comparison:
    images = pair.ours.images
    mine, others = take_turns((ours, theirs), pair.budget_s, images.device)
    return Comparison(
        "s",
        statistics.median(mine),
        statistics.median(others),
        statistics.median(mine) / len(images),
        statistics.median(others) / len(images),
        Ratio.of(mine, others),
        len(mine),
        depth,
    )


def _peaks(pair: Pair, ours: Run, theirs: Run, depth: str = "") -> Comparison:
    images = pair.ours.images
    for _ in range(WARM_UP):
        ours(), theirs()
    mine, others = peak_mib(ours, images.device), peak_mib(theirs, images.device)
    ratio = mine / others
    return Comparison(
        "MiB",
        mine,
        others,
        mine / len(images),
        others / len(images),
        Ratio(ratio, ratio, ratio),
        1,
        depth,
    )


def inference(pair: Pair) -> Comparison:
    """Forward passes in eval mode."""
    pair.train(False)
    return _times(pair, pair.ours.infer, pair.twin.infer)


def training_step(pair: Pair) -> Comparison:
    """Forward, cross-entropy, backward, AdamW."""
    pair.train()
    return _times(pair, pair.ours.train, pair.twin.train)


def kept_memory(pair: Pair) -> Comparison:
    """What is held for the backward pass; the ratio is that for each image."""
    images = len(pair.ours.images)
    (mine, once), (others, others_once) = kept_mib(pair.ours), kept_mib(pair.twin)
    ratio = mine / others
    return Comparison(
        "MiB",
        mine * images + once,
        others * images + others_once,
        mine,
        others,
        Ratio(ratio, ratio, ratio),
        1,
    )


def training_memory(pair: Pair) -> Comparison:
    """The peak of a training step."""
    pair.train()
    return _peaks(pair, pair.ours.train, pair.twin.train)


class Explaining:
    """Explanations of a model's batch, the model in eval mode.

    Args:
        contender: the B-cos model.
    """

    def __init__(self, contender: Contender) -> None:
        self.model: Any = contender.network.eval()
        self.images = contender.images

    def one(self, depth: str = "pixels") -> Run:
        """One class."""
        return lambda: explain(self.model, self.images, 0, depth=depth)

    def several(self, classes: int | None, depth: str = "pixels") -> Run:
        """The first ``classes`` classes, or all, each dropped when the next one is there."""
        targets = None if classes is None else range(classes)
        return lambda: deque(
            explain_classes(self.model, self.images, targets, depth=depth), maxlen=0
        )

    def depth_of_16_px(self) -> str:
        """The depth nearest the head, but the head itself, where a position is 16 px wide.

        Raises:
            ValueError: there is none.
        """
        wanted = tuple(grid_side(side) for side in self.images.shape[-2:])
        image = self.images[:1]
        for depth in reversed(self.model.depths()[:-1]):
            if explain(self.model, image, 0, depth=depth).contributions.shape[1:] == wanted:
                return depth
        raise ValueError(f"no depth of this {type(self.model).__name__} has positions of 16 px")


def explain_class(pair: Pair) -> Comparison:
    """One class, down to pixels."""
    return _times(pair, Explaining(pair.ours).one(), pair.ours.infer, "pixels")


def explain_several(pair: Pair) -> Comparison:
    """Several classes, down to pixels."""
    explaining = Explaining(pair.ours).several(pair.classes)
    return _times(pair, explaining, pair.ours.infer, "pixels")


def explain_head(pair: Pair) -> Comparison:
    """All classes of a model that has several, down to what the head sees."""
    model: Any = copy.deepcopy(pair.ours.network)
    model.reset_classifier(pair.classes)
    contender = Contender(model, pair.ours.images)
    return _times(pair, Explaining(contender).several(None, "head"), contender.infer, "head")


def explain_16px(pair: Pair) -> Comparison:
    """One class, down to positions of 16 px."""
    explaining = Explaining(pair.ours)
    depth = explaining.depth_of_16_px()
    return _times(pair, explaining.one(depth), pair.ours.infer, depth)


def explain_class_memory(pair: Pair) -> Comparison:
    """The peak of explaining one class, over that of a forward pass."""
    return _peaks(pair, Explaining(pair.ours).one(), pair.ours.infer, "pixels")


def explain_classes_memory(pair: Pair) -> Comparison:
    """The peak of explaining several classes, over that of two.

    Not over that of one, which frees its graph on the way back as no other can.
    """
    explaining = Explaining(pair.ours)
    return _peaks(pair, explaining.several(pair.classes), explaining.several(2), "pixels")


MEASURES = {
    "inference": Measure("inference", "twin", inference, MODES),
    "explain_class": Measure(
        "explain one class to pixels", "own forward", explain_class, classes="1"
    ),
    "explain_classes": Measure(
        "explain several classes to pixels", "own forward", explain_several, classes=None
    ),
    "explain_head": Measure(
        "explain all classes at the head", "own forward", explain_head, classes=None
    ),
    "explain_16px": Measure(
        "explain one class at positions of 16 px", "own forward", explain_16px, classes="1"
    ),
    "explain_class_memory": Measure(
        "peak memory, explaining one class", "own forward", explain_class_memory, classes="1"
    ),
    "explain_classes_memory": Measure(
        "peak memory, explaining several classes",
        "two classes",
        explain_classes_memory,
        classes=None,
    ),
    "kept_memory": Measure("memory held for backward, per image", "twin", kept_memory),
    "training_memory": Measure("peak memory of a training step", "twin", training_memory, MODES),
    "training_step": Measure("training step", "twin", training_step, MODES),
}
