"""Ways to score the tiles of a bag for a class, by name.

All go by what the aggregator makes of features; higher means more for the class. Controls know
nothing (``random``) or all (``oracle``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_vit.errors import UnsupportedMethodError
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.explain import checked_bag, explain_bag
from pathology.aggregators.removal import removal_effects
from pathology.benchmark.slides.lrp import check_lrp, lrp
from pathology.benchmark.tile_scores import gradient_input

_SINGLES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class TileScores:
    """What a method says of a bag's tiles.

    Args:
        scores: ``(N,)`` float64; ties are ties, whatever their places.
        forward_passes: of the whole bag; a bag of one tile is ``1 / N`` of one.
        backward_passes: likewise.
    """

    scores: Tensor
    forward_passes: float
    backward_passes: float = 0


Score = Callable[[Aggregator, Tensor, int], TileScores]


@dataclass(frozen=True, slots=True)
class TileMethod:
    """A way to score tiles.

    Args:
        score: of an aggregator, features ``(N, D)`` and an output.
        check: refuses an aggregator that the method is undefined on.
        in_logits: whether scores of different slides are on one scale.
    """

    score: Score
    check: Callable[[Aggregator], None] = lambda aggregator: None
    in_logits: bool = True


def _attention(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    with torch.no_grad():
        weights = aggregator.attention(features[None])
    assert weights is not None  # by its check
    return TileScores(weights[0].double(), 1)


def _check_attention(aggregator: Aggregator) -> None:
    with torch.no_grad():
        weights = next(aggregator.parameters())
        probe = weights.new_zeros(1, 1, aggregator.in_features)
        if aggregator.attention(probe) is None:
            raise UnsupportedMethodError(
                f"{type(aggregator).__name__} has no attention: all tiles weigh the same"
            )


def _single(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    with torch.no_grad():
        parts = [aggregator(part[:, None]) for part in features.split(_SINGLES_AT_ONCE)]
    return TileScores(torch.cat(parts)[:, target].double(), 1)


def _additive(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    return TileScores(explain_bag(aggregator, features, target).contributions.double(), 1)


def _check_additive(aggregator: Aggregator) -> None:
    has_form = type(aggregator).tile_contributions is not Aggregator.tile_contributions
    if not has_form:
        raise UnsupportedMethodError(
            f"{type(aggregator).__name__} has no additive logits of tiles; AdditiveMIL has"
        )


def _gradient_input(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    products = gradient_input(aggregator, features[None])[0, :, target]
    return TileScores(products.detach().double(), 1, 1)


def _lrp(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    return TileScores(lrp(aggregator, features, target).double(), 1, 1)


def _contribution(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    return TileScores(explain_bag(aggregator, features, target).contributions.double(), 1, 1)


def _check_contribution(aggregator: Aggregator) -> None:
    if not aggregator.exact:
        raise UnsupportedMethodError(
            f"{type(aggregator).__name__} is no exact sum over features of tiles: it has no"
            " contributions"
        )


def _removal(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    found = removal_effects(aggregator, features, target)
    return TileScores(found.effects, 1 if found.closed_form else 1 + len(features))


def _random(aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    return TileScores(torch.zeros(len(features), dtype=torch.float64), 0)


TILE_METHODS: dict[str, TileMethod] = {
    "contribution": TileMethod(_contribution, _check_contribution),
    "removal": TileMethod(_removal),
    "attention": TileMethod(_attention, _check_attention, in_logits=False),
    "single": TileMethod(_single),
    "additive": TileMethod(_additive, _check_additive),
    "gradient_input": TileMethod(_gradient_input),
    "lrp": TileMethod(_lrp, check_lrp),
    "random": TileMethod(_random, in_logits=False),
}
"""Exact contributions and removal effects; attention weights, of no class; the aggregator on a bag
of one; terms of additive MIL; gradient times features; LRP; and ``random``, which scores all tiles
alike, so that their order is one at random wherever an order is needed."""

ORACLE = "oracle"
"""A control that is given how much of each tile is lesion. No method can find lesions better; one
that follows what the aggregator goes by can be ahead of it in all else."""

NAMES = (*TILE_METHODS, ORACLE)


def score_tiles(name: str, aggregator: Aggregator, features: Tensor, target: int) -> TileScores:
    """Scores of a bag's tiles by a method.

    Args:
        name: a key of :data:`TILE_METHODS`.
        aggregator: in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.
        target: the output.

    Raises:
        UnsupportedMethodError: the method is undefined on this aggregator.
        ValueError: no such method; else as :func:`pathology.aggregators.removal.removal_effects`.
        TypeError: likewise.
    """
    if name not in TILE_METHODS:
        raise ValueError(f"method must be one of {', '.join(TILE_METHODS)}; got {name!r}")
    method = TILE_METHODS[name]
    method.check(aggregator)
    found = method.score(aggregator, checked_bag(aggregator, features), target)
    return TileScores(found.scores.cpu(), found.forward_passes, found.backward_passes)
