"""The tiles that argue most, held with their pixels while a slide goes by."""

import heapq
from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from bcos_vit.explain import Explanation
from bcos_vit.render import colour_explanation
from pathology.explain.results.report import ReportTile
from pathology.explain.scorers.scorer import Window
from pathology.geometry import Box

Draw = Callable[[], ReportTile]


class Gallery:
    """The most extreme tiles seen so far; memory does not grow, and only those kept are drawn.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.heap: list[tuple[float, int, Draw]] = []

    def offer(self, strength: float, index: int, hold: Callable[[], Draw]) -> None:
        """Keep what ``hold`` gives to draw if the tile is among the strongest so far."""
        if strength <= 0 or not self.size:
            return
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, (strength, index, hold()))
        elif strength > self.heap[0][0]:
            heapq.heapreplace(self.heap, (strength, index, hold()))

    def tiles(self) -> list[ReportTile]:
        """The strongest first."""
        return [draw() for *_, draw in sorted(self.heap, key=lambda entry: -entry[0])]


def hold_tile(
    pixels: Tensor,
    explanation: Explanation,
    window: Window,
    box: Box,
    weight: float,
    logit: float | None,
    removal_effect: float | None,
    in_colour: bool,
) -> Draw:
    """What it takes to draw a tile, cut out of its window; W(x) as a picture ``in_colour``.

    Args:
        pixels: ``(3, height, width)`` of the window.
        explanation: of the window alone.
        window: where both lie.
        box: where the tile lies in it.
        weight: what contributions are multiplied by to be shares of the slide's score.
        logit: of the tile, where it has one.
        removal_effect: of the tile, where known.
        in_colour: whether to picture W(x).
    """
    # Copies, so that neither the window nor its batch is held.
    return partial(
        _drawn,
        _cut(pixels.cpu().numpy(), window.box, box).transpose(1, 2, 0).copy(),
        _cut(explanation.contributions.double().cpu().numpy(), window.box, box).copy(),
        _cut(explanation.weights.cpu().numpy(), window.box, box).copy() if in_colour else None,
        box,
        weight,
        logit,
        removal_effect,
    )


def _drawn(
    image: np.ndarray,
    contributions: np.ndarray,
    weights: np.ndarray | None,
    box: Box,
    weight: float,
    logit: float | None,
    removal_effect: float | None,
) -> ReportTile:
    return ReportTile(
        image=image,
        contributions=contributions * weight,
        box=box,
        logit=logit,
        removal_effect=removal_effect,
        weights_picture=None if weights is None else colour_explanation(weights, contributions),
    )


def _cut(values: np.ndarray, window: Box, box: Box) -> np.ndarray:
    """What of ``(..., rows, columns)`` over ``window`` lies over ``box``, to the nearest cell."""
    rows, columns = values.shape[-2:]
    down, right = rows / window.height, columns / window.width
    top, left = round((box.y - window.y) * down), round((box.x - window.x) * right)
    bottom = max(top + 1, round((box.y + box.height - window.y) * down))
    end = max(left + 1, round((box.x + box.width - window.x) * right))
    return values[..., top:bottom, left:end]
