"""What is noted of one target while the windows of a slide are taken apart, one after another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bcos_vit.explain import Explanation, split_stains
from pathology.explain.gallery import Gallery, hold_tile
from pathology.explain.ledger import Ledger, Undivided, float32_tolerance
from pathology.explain.results.report import ReportTile
from pathology.explain.scorers.scorer import TargetPlan, Window
from pathology.explain.stitching.stitch import Stitched, Stitcher
from pathology.geometry import Box, Mpp, Size
from pathology.tiling import TileGrid


@dataclass(frozen=True)
class Canvas:
    """What a map is stitched on.

    Args:
        slide_size: in level-0 px.
        slide_mpp: micrometres per level-0 px.
        out_mpp: micrometres per pixel of the map.
        window: sides of the largest window, in level-0 px.
    """

    slide_size: Size
    slide_mpp: Mpp
    out_mpp: float
    window: Size

    def stitcher(self, folder: Path) -> Stitcher:
        """An empty map, kept in ``folder``."""
        return Stitcher(self.slide_size, self.slide_mpp, self.out_mpp, self.window, folder)


@dataclass
class Account:
    """Map, table and strongest tiles of one target, as they come.

    Args:
        plan: of the target.
        grid: the slide's tiles.
        canvas: what the map is stitched on.
        folder: where it is kept.
        undivided: numbers of tiles that stay whole: what they add is known and spread evenly.
        stains: names of the parts that contributions are split into.
        gallery: tiles kept with their pixels, for and against.
        in_colour: whether W(x) of pixels is a picture.
        logits: ``(n, classes)`` the tiles' own, shared by all targets; None for a slide model.
    """

    plan: TargetPlan
    grid: TileGrid
    canvas: Canvas
    folder: Path
    undivided: NDArray[np.intp]
    stains: Sequence[str] = ()
    gallery: int = 6
    in_colour: bool = False
    logits: NDArray[np.float64] | None = None

    places: tuple[int, int] = field(default=(0, 0), init=False)
    """Rows and columns of a tile where explanations stop."""

    def __post_init__(self) -> None:
        count = len(self.grid)
        self.stitcher = self.canvas.stitcher(self.folder)
        self.by_stain = {name: self.canvas.stitcher(self.folder / name) for name in self.stains}
        names = ("contribution", "positive", "negative", "bias", "gap", *self.stains)
        self.columns = {name: np.full(count, np.nan) for name in names}
        self.own = np.full(count, np.nan)
        self.constants = dict(self.plan.constants)
        self.best, self.worst = Gallery(self.gallery), Gallery(self.gallery)
        self._whole = self._whole_tiles()
        self._next = next(self._whole, None)

    def _whole_tiles(self) -> Iterator[tuple[int, Box, float]]:
        """Undivided tiles from top to bottom: number, box, and what each adds to the score."""
        shares = self.plan.shares
        if not len(self.undivided) or shares is None or self.plan.numbers is None:
            return
        x, y = self.grid.x[self.undivided], self.grid.y[self.undivided]
        for i in self.undivided[np.lexsort((x, y))]:
            yield int(i), self.grid[int(i)].box, float(shares[i])

    def take(
        self, windows: list[Window], pixels: Tensor, images: Tensor, found: Explanation
    ) -> None:
        """Note the explanation of some windows, called from the top of the slide to its bottom.

        Args:
            windows: what was explained.
            pixels: ``(batch, 3, height, width)`` uint8.
            images: what the network saw of them.
            found: the explanation.
        """
        values = found.contributions.double().cpu().numpy()
        parts = {
            name: part.double().cpu().numpy()
            for name, part in (split_stains(found, images) if self.stains else {}).items()
        }
        biases, gaps = (
            each.double().cpu().numpy() for each in (found.bias, found.completeness_gap)
        )
        logits = found.logit.double().cpu().numpy()
        scales = np.array([self._scale(window) for window in windows])
        for name, term in found.constants.items():
            share = float(scales @ term.double().cpu().numpy())
            self.constants[name] = self.constants.get(name, 0.0) + share
        for row, window in enumerate(windows):
            if not scales[row]:
                continue  # explained for another target
            self._stay_whole(until=window.box.y)
            if len(window.tiles) == 1:
                (index,) = window.tiles
                self._note_tile(index, values[row], biases[row], logits[row])
                for name, part in parts.items():
                    self.columns[name][index] = part[row].sum()
            else:
                self._note_tiles(self._counted(window))
            self.columns["gap"][self._counted(window)] = gaps[row]
            self._place(window, values[row], scales[row], self.stitcher)
            for name, part in parts.items():
                self._place(window, part[row], scales[row], self.by_stain[name])
            self._offer(window, pixels[row], found, row, scales[row])
        first = windows[0].box
        rows, columns = values.shape[1:]
        tile = self.grid.tile_size
        self.places = (
            round(rows * tile.height / first.height),
            round(columns * tile.width / first.width),
        )

    def _scale(self, window: Window) -> float:
        """What a window's contributions count; of several tiles their weights are in them."""
        weights = self.plan.weights[list(window.tiles)]
        return float(weights[0]) if len(weights) == 1 else float(weights.any())

    def _counted(self, window: Window) -> list[int]:
        """A window's tiles that count for this target; others may count for another."""
        return [i for i in window.tiles if self.plan.weights[i] > 0]

    def _note_tile(self, index: int, values: NDArray[np.float64], bias: float, own: float) -> None:
        """A tile that was explained by itself."""
        self.columns["contribution"][index] = values.sum()
        self.columns["positive"][index] = values.clip(min=0).sum()
        self.columns["negative"][index] = values.clip(max=0).sum()
        self.columns["bias"][index] = bias
        self.own[index] = own

    def _note_tiles(self, tiles: list[int]) -> None:
        """Tiles that share a window, or stay whole: what the first pass has told of them."""
        numbers, biases = self.plan.numbers, self.plan.biases
        if numbers is None:
            raise ValueError("the plan does not tell the tiles' own numbers")
        self.own[tiles] = numbers[tiles]
        self.columns["bias"][tiles] = 0.0 if biases is None else biases[tiles]
        self.columns["contribution"][tiles] = self.own[tiles] - self.columns["bias"][tiles]

    def _place(
        self, window: Window, values: NDArray[np.float64], scale: float, stitcher: Stitcher
    ) -> None:
        """Put a window's contributions on the map."""
        if len(window.tiles) == 1 and window.box == self.grid[window.tiles[0]].box:
            stitcher.add(window.box, values, scale)
            return
        covers = [(self.grid[i].box, float(self.plan.weights[i])) for i in self._counted(window)]
        stitcher.add(window.box, values, scale, covers)

    def _offer(
        self, window: Window, pixels: Tensor, found: Explanation, row: int, scale: float
    ) -> None:
        """Show a window's tiles to the gallery."""
        for index in self._counted(window):
            strength = float(self.plan.weights[index] * self.columns["contribution"][index])
            effects = self.plan.columns.get("removal_effect")
            hold = partial(
                hold_tile,
                pixels,
                found[row],
                window,
                self.grid[index].box,
                scale,
                None if self.logits is None else float(self.own[index]),
                None if effects is None else float(effects[index]),
                self.in_colour,
            )
            self.best.offer(strength, index, hold)
            self.worst.offer(-strength, index, hold)

    def _stay_whole(self, until: float) -> None:
        """Put undivided tiles on the map that begin above or at ``until``."""
        while self._next is not None and self._next[1].y <= until:
            index, box, share = self._next
            self._note_tiles([index])
            weight = float(self.plan.weights[index])
            self.stitcher.add(box, np.array([[share / weight]]), weight)
            self._next = next(self._whole, None)

    def finish(self) -> tuple[Stitched, dict[str, Stitched], Ledger]:
        """The map, the maps of its stains, and the ledger, which closes.

        Raises:
            LedgerError: the map does not account for the score.
        """
        self._stay_whole(until=np.inf)
        plan, stitched = self.plan, self.stitcher.finish()
        used = plan.weights > 0
        weights = plan.weights[used]
        score = float(weights @ self.own[used]) if plan.score is None else plan.score
        shares = plan.shares if len(self.undivided) else None
        ledger = Ledger(
            score=score,
            bias=plan.bias + float(weights @ self.columns["bias"][used]),
            map_sum=stitched.map_sum,
            cut_off=stitched.cut_off,
            constants=self.constants,
            tolerance=float32_tolerance(score, stitched.absolute_sum),
            undivided=None if shares is None else Undivided.of(shares[self.undivided]),
        )
        ledger.check()
        return stitched, {name: each.finish() for name, each in self.by_stain.items()}, ledger

    def table(self, classes: Sequence[str]) -> pd.DataFrame:
        """One row per tile; see :class:`pathology.explain.slide.SlideExplanation`."""
        boxes = self.grid.boxes()
        of_classes = {} if self.logits is None else dict(zip(classes, self.logits.T, strict=True))
        return pd.DataFrame(
            {name: boxes[:, i] for i, name in enumerate(("x", "y", "width", "height"))}
            | {"tissue": self.grid.tissue, "weight": self.plan.weights}
            | {f"logit_{name}": column.copy() for name, column in of_classes.items()}
            | self.columns
            | dict(self.plan.columns)
        )

    def strongest(self) -> tuple[list[ReportTile], list[ReportTile]]:
        """The tiles that argue most for and against."""
        return self.best.tiles(), self.worst.tiles()
