"""Insertion and deletion: what a network still says as pixels are taken away in a map's order.

Most relevant first (MoRF) should make the logit fall at once, least relevant first (LeRF) should
leave it alone. To insert the best pixels into an empty image is to delete the worst from the whole
one, so an insertion curve is the other order's deletion curve read backwards, and two curves tell
everything.

Curves of different networks do not compare as they are: a CNN falls apart under holes of any shape
where a ViT drops tokens. Between networks use networks that learnt from images with deleted cells
(:mod:`pathology.map_quality.single_deletion`).

Sources: Petsiuk et al., "RISE", BMVC 2018 (arXiv:1806.07421); Samek et al., "Evaluating the
visualization of what a deep neural network has learned", TNNLS 2017 (arXiv:1509.06321); of the
difference of both orders, Blücher et al., "Decoupling Pixel Flipping and Occlusion Strategy for
Consistent XAI Benchmarks", TMLR 2024 (arXiv:2401.06654).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Fill, Inpainting
from pathology.map_quality.scoring import Image, Quantity, Squash, check_map, said

Order = Literal["morf", "lerf"]


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What a network says of an image as more and more of it is removed.

    Args:
        shares: ``(s,)`` of the pixels (or parts) that are gone, rising; as near to what was asked
            for as whole ones allow.
        morf: ``(orders, s, classes)`` logits, most relevant removed first, for each random order of
            ties.
        lerf: likewise, least relevant first.
        target: the class explained.
        squash: from logits to probabilities.
    """

    shares: NDArray[np.float64]
    morf: NDArray[np.float64]
    lerf: NDArray[np.float64]
    target: int
    squash: Squash = "softmax"

    def curve(self, order: Order, quantity: Quantity = "probability") -> NDArray[np.float64]:
        """``(s,)``: a logit or probability by share removed, mean over orders of ties."""
        logits = {"morf": self.morf, "lerf": self.lerf}[order]
        return said(logits, self.target, quantity, self.squash).mean(0)

    def accuracy(self, order: Order) -> NDArray[np.float64]:
        """``(s,)``: whether the target still is the highest class; a share over orders of ties."""
        logits = {"morf": self.morf, "lerf": self.lerf}[order]
        right: NDArray[np.float64] = (logits.argmax(-1) == self.target).mean(0)
        return right

    def deletion(self, quantity: Quantity = "probability") -> float:
        """Area under the curve of most relevant first, over shares from 0 to 1; low is good."""
        return self._area("morf", quantity)

    def insertion(self, quantity: Quantity = "probability") -> float:
        """Area as the most relevant are inserted first into the empty image; high is good."""
        return self._area("lerf", quantity)

    def abpc(self, quantity: Quantity = "probability") -> float:
        """Area between the curves, LeRF - MoRF; 0 is chance, high is good."""
        return self.insertion(quantity) - self.deletion(quantity)

    def mean_difference(self, quantity: Quantity = "probability") -> float:
        """Mean of LeRF - MoRF over the shares, each counting the same."""
        return float((self.curve("lerf", quantity) - self.curve("morf", quantity)).mean())

    def _area(self, order: Order, quantity: Quantity) -> float:
        width = self.shares[-1] - self.shares[0]
        return float(np.trapezoid(self.curve(order, quantity), self.shares) / width)


def deletion(
    question: Question,
    attribution: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    fill: Fill | None = None,
    steps: int | Sequence[float] = 20,
    parts: NDArray[np.integer] | None = None,
    orders: int = 1,
) -> Curves:
    """Both deletion curves of one map.

    Args:
        question: the image, the class explained and the network.
        attribution: ``(h, w)`` the map; only its order counts.
        rng: of the order of ties. A constant map is deleted in random order, which is chance.
        fill: what removed pixels become; :class:`~pathology.map_quality.replacement.Inpainting`
            when omitted.
        steps: so many equal steps from 0 to 1, or the shares removed themselves, rising.
        parts: ``(h, w)`` numbers of superpixels or cells that are removed as a whole, in the order
            of their means; single pixels when omitted.
        orders: random orders of ties to average over; more than one only helps maps with ties.

    Raises:
        ValueError: image, map, parts or steps that do not go together.
    """
    image = question.image
    check_map(image, attribution)
    fill = Inpainting() if fill is None else fill
    wanted = removed_shares(steps)
    if orders < 1:
        raise ValueError(f"orders must be at least 1, got {orders}")
    values, member = _parts(attribution, parts)
    # Where nothing ties every order is the same, and asking twice tells nothing.
    orders = orders if len(np.unique(values)) < len(values) else 1
    counts = np.unique(np.rint(wanted * len(values)).astype(int))
    if len(counts) < 2:
        raise ValueError(f"steps {steps} are all the same of {len(values)} parts")
    shares = counts / len(values)
    places = [ranks(values, rng) for _ in range(orders)]

    def images() -> Iterator[Image]:
        for rank in places:
            for count in counts:
                yield fill(image, rank[member] < count)
            for count in counts:
                yield fill(image, rank[member] >= len(values) - count)

    logits = question.logits(images())
    both = logits.reshape(orders, 2, len(shares), -1)
    return Curves(shares, both[:, 0], both[:, 1], question.target, question.squash)


def removed_shares(steps: int | Sequence[float]) -> NDArray[np.float64]:
    """Shares removed, of so many equal steps or as they are given.

    Raises:
        ValueError: no step, or shares that do not rise from 0 to 1 at most.
    """
    if isinstance(steps, int):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        return np.linspace(0, 1, steps + 1)
    shares = np.asarray(steps, np.float64)
    if shares.ndim != 1 or len(shares) < 2 or not (np.diff(shares) > 0).all():
        raise ValueError(f"steps must be two shares or more that rise, got {steps}")
    if shares[0] < 0 or shares[-1] > 1:
        raise ValueError(f"shares removed must lie in [0, 1], got {steps}")
    return shares


def _parts(
    attribution: NDArray[np.floating], parts: NDArray[np.integer] | None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """A value per part, and each pixel's part."""
    if parts is None:
        size = attribution.size
        return attribution.astype(np.float64).ravel(), np.arange(size).reshape(attribution.shape)
    if parts.shape != attribution.shape:
        raise ValueError(f"parts must have the map's shape {attribution.shape}, got {parts.shape}")
    _, member = np.unique(parts, return_inverse=True)
    sums = np.bincount(member.ravel(), attribution.ravel().astype(np.float64))
    return sums / np.bincount(member.ravel()), member.reshape(parts.shape)


def ranks(values: ArrayLike, rng: np.random.Generator) -> NDArray[np.intp]:
    """Place of each in the order from highest to lowest, ties at random."""
    values = np.asarray(values)
    order = np.lexsort((rng.random(len(values)), -values))
    rank = np.empty(len(values), np.intp)
    rank[order] = np.arange(len(values))
    return rank
