"""The score of a dense tile model: logits of tiles that see what lies around them, pooled.

A dense model (:mod:`bcos_vit.models.dense`) evaluates a tile inside a halo, and gives it the same
logit in any block of tiles. So tiles on a common lattice are read, scored and taken apart in
blocks with one halo around them: 4 x 4 tiles of 224 px and a halo of 224 px cost a quarter of the
same tiles each with its own. Contributions lie where pixels do: a tile's logit owns pixels in its
halo as well, and those of the tiles of a block are on the map together, times their weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcos_vit.explain import Explanation, explain_classes
from bcos_vit.explain.trace import PIXELS
from bcos_vit.models.dense import CellReadout, Dense
from pathology.explain.scorers.blocks import Blocks
from pathology.explain.scorers.pooled_logits import Mixture, check_finite, highest
from pathology.explain.scorers.pooling import MeanPooling, Pooling
from pathology.explain.scorers.scorer import (
    TILES,
    Batches,
    Encoding,
    Plan,
    TargetPlan,
    Window,
    check_tile_depth,
)
from pathology.explain.targets import Target
from pathology.tiling import TileGrid

BLOCK_TILES = 4
"""Tiles along a block's side: the halo then costs 1.25 times the block itself for ResNet-18."""


@dataclass(frozen=True)
class DenseLogits:
    """A dense tile model, whose logits are pooled.

    Of a tile that shares a block only the contributions' sum is told apart (its logit less the
    bias), not its positive and negative parts.

    Args:
        model: in eval mode, its network a B-cos model unless explanations stop at tiles.
        encoding: uint8 tiles to its input.
        classes: in the order of the logits.
        pooling: gives tiles their weights.
        depth: where explanations stop, or :data:`~pathology.explain.scorers.scorer.TILES`.
        block_tiles: tiles along a block's side. More are quicker, and take more memory.

    Raises:
        NotExplainableError: the model is not dynamic-linear, and explanations go into tiles.
        ValueError: it does not have that ``depth``; no tile in a block.
    """

    model: Dense
    encoding: Encoding
    classes: list[str]
    pooling: Pooling = field(default_factory=MeanPooling)
    depth: str = PIXELS
    block_tiles: int = BLOCK_TILES

    def __post_init__(self) -> None:
        if self.block_tiles < 1:
            raise ValueError(f"block_tiles must be at least 1, got {self.block_tiles}")
        check_tile_depth(self.model, self.depth)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def windows(self, grid: TileGrid, tiles: NDArray[np.intp]) -> list[Window]:
        return Blocks(self.model, grid, self.block_tiles).windows(tiles)

    def plan(
        self, grid: TileGrid, batches: Batches, targets: Sequence[Target], whole: bool
    ) -> Plan:
        known = torch.full((len(grid), len(self.classes)), torch.nan, dtype=torch.float64)
        for chosen, pixels in batches(self.windows(grid, np.arange(len(grid))), "scoring"):
            numbers, scored = self.look(grid, self.encoding(pixels), chosen)
            known[numbers] = scored.double().cpu()
        check_finite(known.numpy(), grid)
        return self.planned(grid, known, targets)

    def look(
        self, grid: TileGrid, images: Tensor, windows: Sequence[Window]
    ) -> tuple[list[int], Tensor]:
        blocks = Blocks(self.model, grid, self.block_tiles)
        with torch.no_grad():
            scored = self.model.tile_logits(images, grid.spec.size_px)
        parts = []
        for row, window in enumerate(windows):
            down, right = blocks.corners(window).T
            parts.append(scored[row][:, down, right].T)
        return [i for window in windows for i in window.tiles], torch.cat(parts)

    def planned(self, grid: TileGrid, known: Tensor, targets: Sequence[Target]) -> Plan:
        blocks = Blocks(self.model, grid, self.block_tiles)
        logits: NDArray[np.float64] = known.double().cpu().numpy()
        if not targets:
            targets = [highest(self.classes, self.pooling, logits)]
        mixtures = [Mixture.of(target, self.pooling, logits) for target in targets]
        ends = self.model.logits.bias.detach().double().cpu().numpy()
        plans = [
            TargetPlan(
                target, mixture.weights, (mixture.classes * logits).sum(1), mixture.classes @ ends
            )
            for target, mixture in zip(targets, mixtures, strict=True)
        ]
        explainer = _Explainer(self.model, self.depth, blocks, logits, mixtures, plans)
        return Plan(plans, explainer, logits)


@dataclass(frozen=True)
class _Explainer:
    """Takes blocks apart for several targets after one forward pass.

    Args:
        model: of blocks.
        depth: where to stop.
        blocks: of the grid.
        logits: ``(n, classes)`` of its tiles.
        mixtures: what of each class each target takes.
        plans: the same targets, with their tiles' numbers.
    """

    model: Dense
    depth: str
    blocks: Blocks
    logits: NDArray[np.float64]
    mixtures: Sequence[Mixture]
    plans: Sequence[TargetPlan]

    def __call__(self, images: Tensor, windows: list[Window]) -> Iterator[Explanation]:
        if self.depth == TILES:
            yield from self._tiles(windows)
            return
        classes = self.logits.shape[1]
        weights = torch.as_tensor(self._weights(windows)).to(images)
        readout: nn.Module = CellReadout(self.model, weights)
        places = list(range(classes, weights.shape[1]))
        yield from explain_classes(readout, images, places, depth=self.depth)

    def _counted(self, window: Window, mixture: Mixture) -> NDArray[np.float64]:
        """What the numbers of a window's tiles count: a tile alone is not weighed yet."""
        tiles = list(window.tiles)
        return np.ones(1) if len(tiles) == 1 else mixture.weights[tiles]

    def _weights(self, windows: list[Window]) -> NDArray[np.float64]:
        """``(batch, outputs, classes, rows, columns)``: classes themselves, then targets.

        The classes' own are of windows with one tile, whose logits they are.
        """
        classes, side = self.logits.shape[1], self.blocks.side
        weights = np.zeros((len(windows), classes + len(self.mixtures), classes, side, side))
        for row, window in enumerate(windows):
            tiles, own = list(window.tiles), weights[row]
            for number, mixture in enumerate(self.mixtures, classes):
                shares = self._counted(window, mixture)[:, None] * mixture.classes[tiles]
                for share, cells in zip(shares, self._cells(window), strict=True):
                    own[number, :, *cells] += share[:, None, None] / self.blocks.tile_cells**2
            if len(tiles) == 1:
                (cells,) = self._cells(window)
                for k in range(classes):
                    own[k, k, *cells] = 1 / self.blocks.tile_cells**2
        return weights

    def _cells(self, window: Window, halo: int = 0) -> list[tuple[slice, slice]]:
        """Rows and columns of each tile's cells, of which the block begins at ``halo``."""
        side = self.blocks.tile_cells
        return [
            (slice(down, down + side), slice(right, right + side))
            for down, right in (self.blocks.corners(window) + halo).tolist()
        ]

    def _tiles(self, windows: list[Window]) -> Iterator[Explanation]:
        """Each tile's number less its bias, spread evenly over the tile itself."""
        halo, side = self.blocks.halo_cells, self.blocks.side
        for mixture, plan in zip(self.mixtures, self.plans, strict=True):
            assert plan.numbers is not None
            assert plan.biases is not None
            places = np.zeros((len(windows), side + 2 * halo, side + 2 * halo))
            numbers, biases = np.zeros((2, len(windows)))
            for row, window in enumerate(windows):
                tiles = list(window.tiles)
                counted = self._counted(window, mixture)
                numbers[row] = counted @ plan.numbers[tiles]
                biases[row] = counted @ plan.biases[tiles]
                shares = counted * (plan.numbers[tiles] - plan.biases[tiles])
                for share, cells in zip(shares, self._cells(window, halo), strict=True):
                    places[row, *cells] += share / self.blocks.tile_cells**2
            # The classes first, of windows with one tile; then what is explained.
            own = self.logits[[window.tiles[0] for window in windows]]
            yield Explanation(
                logits=torch.as_tensor(np.concatenate([own, numbers[:, None]], 1)),
                target=torch.full((len(windows),), own.shape[1], dtype=torch.int64),
                bias=torch.as_tensor(biases),
                weights=torch.zeros(len(windows), 0, *places.shape[1:]),
                contributions=torch.as_tensor(places),
                depth=TILES,
            )
