"""The score of a tile model: its logits of a slide's tiles, pooled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcos_vit.explain import Explanation, explain_classes
from bcos_vit.explain.trace import PIXELS
from bcos_vit.layers import Logits
from pathology.aggregators.readout import Readout
from pathology.explain.scorers.pooling import MeanPooling, Pooling
from pathology.explain.scorers.scorer import (
    TILES,
    Batches,
    Encoding,
    Plan,
    TargetPlan,
    Window,
    as_one_place,
    check_tile_depth,
    each_tile,
    numbers_of,
)
from pathology.explain.targets import Target, one_class
from pathology.tiling import TileGrid


@dataclass(frozen=True)
class Mixture:
    """A target as weights of the tiles and, in each, of the classes.

    With a pooling that goes by logits each class has weights of its own, so a difference of two
    mixes them differently in each tile: ``sum_k a_k w_ik logit_ik = w_i (v_i . logits_i)``.

    Args:
        weights: ``(n,)`` w_i, the sum of ``|a_k| w_ik`` over its greatest sum of a tile's; the
            pooling's own for a single class.
        classes: ``(n, classes)`` v_i.
    """

    weights: NDArray[np.float64]
    classes: NDArray[np.float64]

    @classmethod
    def of(cls, target: Target, pooling: Pooling, logits: NDArray[np.float64]) -> "Mixture":
        """What ``target`` takes of ``logits`` ``(n, classes)``."""
        shares = np.array(target.coefficients)
        by_class = np.zeros_like(logits)
        for k in np.flatnonzero(shares):
            by_class[:, k] = pooling.weights(logits[:, k])
        weights = (by_class * np.abs(shares)).sum(1) / np.abs(shares).sum()
        mixed = np.zeros_like(logits)
        np.divide(by_class * shares, weights[:, None], out=mixed, where=weights[:, None] > 0)
        return cls(weights, mixed)


def highest(classes: Sequence[str], pooling: Pooling, logits: NDArray[np.float64]) -> Target:
    """The class of the highest score, of the tiles' logits ``(n, classes)``."""
    pooled = [pooling.weights(column) @ column for column in logits.T]
    return one_class(classes, int(np.argmax(pooled)))


@dataclass(frozen=True)
class PooledLogits:
    """A tile model, whose logits are pooled.

    Args:
        model: a B-cos model in eval mode.
        encoding: uint8 tiles to its input.
        classes: in the order of the logits.
        pooling: gives tiles their weights.
        depth: where explanations stop, or :data:`TILES`.

    Raises:
        NotExplainableError: the model is not dynamic-linear, and explanations go into tiles.
        ValueError: it does not have that ``depth``.
    """

    model: nn.Module
    encoding: Encoding
    classes: list[str]
    pooling: Pooling = field(default_factory=MeanPooling)
    depth: str = PIXELS

    def __post_init__(self) -> None:
        check_tile_depth(self.model, self.depth)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def windows(self, grid: TileGrid, tiles: NDArray[np.intp]) -> list[Window]:
        return each_tile(grid, tiles)

    def plan(
        self, grid: TileGrid, batches: Batches, targets: Sequence[Target], whole: bool
    ) -> Plan:
        known = torch.full((len(grid), len(self.classes)), torch.nan, dtype=torch.float64)
        if self.pooling.needs_logits or whole or not targets:
            for chosen, tiles in batches(self.windows(grid, np.arange(len(grid))), "scoring"):
                numbers, scored = self.look(grid, self.encoding(tiles), chosen)
                known[numbers] = scored.double().cpu()
            check_finite(known.numpy(), grid)
        return self.planned(grid, known, targets)

    def look(
        self, grid: TileGrid, images: Tensor, windows: Sequence[Window]
    ) -> tuple[list[int], Tensor]:
        with torch.no_grad():
            return numbers_of(windows), self.model(images)

    def planned(self, grid: TileGrid, known: Tensor, targets: Sequence[Target]) -> Plan:
        logits: NDArray[np.float64] = known.double().cpu().numpy()
        is_known = bool(np.isfinite(logits).all())
        if not targets:
            targets = [highest(self.classes, self.pooling, logits)]
        mixtures = [Mixture.of(target, self.pooling, logits) for target in targets]
        biases = self._biases()
        return Plan(
            [
                TargetPlan(
                    target,
                    mixture.weights,
                    (mixture.classes * logits).sum(1) if is_known else None,
                    mixture.classes @ biases,
                )
                for target, mixture in zip(targets, mixtures, strict=True)
            ],
            self._explainer(targets, mixtures, biases),
            logits,
        )

    def _explainer(
        self, targets: Sequence[Target], mixtures: Sequence[Mixture], biases: NDArray[np.float64]
    ) -> "_Explainer":
        places = [target.place for target in targets]
        if None in places:
            classes = np.stack([mixture.classes for mixture in mixtures], axis=1)
            return _Explainer(self.model, self.depth, biases, classes=classes)
        return _Explainer(self.model, self.depth, biases, [p for p in places if p is not None])

    def _biases(self) -> NDArray[np.float64]:
        """The constant at the end of each logit, 0 where there is none to be told apart."""
        end = getattr(self.model, "logits", None)
        if not isinstance(end, Logits):
            return np.zeros(len(self.classes))
        biases: NDArray[np.float64] = end.bias.detach().double().cpu().numpy()
        return np.broadcast_to(biases, len(self.classes)).copy()


def check_finite(logits: NDArray[np.float64], grid: TileGrid) -> None:
    """Refuse logits that a pooling would pass over, as the highest do NaN.

    Raises:
        ValueError: naming the first tile.
    """
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        x, y = grid.x[bad[0]], grid.y[bad[0]]
        raise ValueError(
            f"the model's logits of the tile at ({x:g}, {y:g}) are not finite; nothing can be"
            " attributed to them"
        )


@dataclass(frozen=True)
class _Explainer:
    """Takes tiles apart for several targets after one forward pass.

    Args:
        model: of tiles.
        depth: where to stop.
        biases: ``(classes,)``.
        places: classes to explain; for all tiles the same.
        classes: ``(n, targets, classes)`` mixtures to explain, where a target mixes classes.
    """

    model: nn.Module
    depth: str
    biases: NDArray[np.float64]
    places: Sequence[int] = ()
    classes: NDArray[np.float64] | None = None

    def __call__(self, images: Tensor, windows: list[Window]) -> Iterator[Explanation]:
        model, places = self.model, list(self.places)
        biases = torch.as_tensor(self.biases).to(images).expand(len(images), -1)
        if self.classes is not None:
            mixed = torch.as_tensor(self.classes[numbers_of(windows)]).to(images)
            # The classes themselves come first, so that tiles keep their logits.
            own = torch.eye(mixed.shape[2]).to(images).expand(len(mixed), -1, -1)
            weights = torch.cat([own, mixed], 1)
            model = Readout(model, weights)
            places = list(range(mixed.shape[2], weights.shape[1]))
            biases = (weights * biases[:, None]).sum(2)
        if self.depth != TILES:
            yield from explain_classes(model, images, places, depth=self.depth)
            return
        with torch.no_grad():
            logits = model(images)
        for place in places:
            yield as_one_place(logits, place, biases[:, place])
