"""Explaining a slide: tile contributions, weighted as the score weighs tiles, on one map.

::

    score = bias + constants + sum_i w_i sum_p c_ip = bias + constants + sum of the map + cut off

The score comes from the model's forward pass, the map from the contributions; the ledger says how
far apart they are, and an explanation whose ledger does not close is an error.
"""

import heapq
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bcos_vit.explain import Explanation, split_stains
from bcos_vit.explain.trace import PIXELS
from bcos_vit.render import colour_explanation
from bcos_vit.stain_space import STAINS
from pathology.errors import NoTissueError
from pathology.explain.ledger import Ledger, float32_tolerance
from pathology.explain.report import ReportTile
from pathology.explain.scoring import Scorer
from pathology.explain.stitch import Stitched, Stitcher
from pathology.explain.tile_reader import read_batches
from pathology.geometry import Box, Size
from pathology.maps.slide_map import SlideMap
from pathology.slides import Slide
from pathology.tiling import TileGrid

Tiles = Callable[[Tensor], Tensor]
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def _silent(batches: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    return batches


@dataclass(frozen=True)
class SlideExplanation:
    """Why a slide's score for one class is what it is.

    Args:
        slide_id: the slide.
        target: name of the explained class.
        ledger: how the score adds up; it closes.
        stitched: the map on disk, valid as long as its folder.
        tiles: one row per tile: ``x, y, width, height`` in level-0 px, ``tissue``, ``weight``, a
            ``logit_<class>`` per class, ``contribution`` (to the tile's own logit, in logits), its
            ``positive`` and ``negative`` parts, ``bias``, ``gap``. Tiles of weight 0 are not
            explained; their contribution is NaN. For a model in stain space also what each stain
            adds to ``contribution``, by its name. Tiles have no logits of their own in a slide
            model; there, ``contribution`` is to the slide's logit, ``attention`` what is usually
            drawn, and ``removal_effect`` the slide's logit minus what it would be without the tile
            (told where there is a closed form).
        tiles_for, tiles_against: the tiles that argue most for and against, with pixels.
        stains: for a model in stain space, a map of each stain's part of the contributions; pixel
            by pixel they sum to the map, up to the rounding of float32. Empty at a depth, where a
            place mixes them.
        depth: where explanations stop.
        places: ``(rows, columns)`` of a tile at that depth; what falls on a place is spread evenly
            over its share of the tile.
    """

    slide_id: str
    target: str
    ledger: Ledger
    stitched: Stitched
    tiles: pd.DataFrame
    tiles_for: list[ReportTile] = field(default_factory=list)
    tiles_against: list[ReportTile] = field(default_factory=list)
    stains: dict[str, Stitched] = field(default_factory=dict)
    depth: str = "pixels"
    places: tuple[int, int] = (0, 0)

    @property
    def logit(self) -> float:
        """The slide's score for the target."""
        return self.ledger.score

    @property
    def contributions(self) -> SlideMap:
        """The additive map in logits; its sum is in the ledger."""
        return self.stitched.additive

    @property
    def stain_sums(self) -> dict[str, float]:
        """Each stain's part of the score in logits: together the ledger's map and cut-off."""
        return {name: part.map_sum + part.cut_off for name, part in self.stains.items()}

    def top(self, n: int) -> list[Box]:
        """Boxes of the ``n`` tiles that add most to the score, the strongest first."""
        share = self.tiles["weight"] * self.tiles["contribution"]
        rows = self.tiles.loc[share.nlargest(n).index]
        return [Box(*row) for row in rows[["x", "y", "width", "height"]].itertuples(index=False)]


class _Gallery:
    """The most extreme tiles seen so far, held with their pixels; memory does not grow."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.heap: list[tuple[float, int, ReportTile]] = []

    def offer(self, strength: float, index: int, make: Callable[[], ReportTile]) -> None:
        """Keep the tile that ``make`` gives if it is among the strongest so far."""
        if strength <= 0 or not self.size:
            return
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, (strength, index, make()))
        elif strength > self.heap[0][0]:
            heapq.heapreplace(self.heap, (strength, index, make()))

    def tiles(self) -> list[ReportTile]:
        """The strongest first."""
        return [tile for *_, tile in sorted(self.heap, key=lambda entry: -entry[0])]


def explain_slide(
    slide: Slide,
    grid: TileGrid,
    scorer: Scorer,
    target: str | None = None,
    *,
    out_mpp: float = 8.0,
    batch_size: int = 16,
    gallery: int = 6,
    scratch: str | Path | None = None,
    progress: Progress = _silent,
    normalise: Tiles | None = None,
) -> SlideExplanation:
    """Explain a slide's score for one class.

    Args:
        slide: the slide, in the colour that ``grid.spec`` asks for.
        grid: its tiles.
        scorer: the model and what makes a score of its tiles: ``PooledLogits``, or
            ``AggregatedFeatures``, of :mod:`pathology.explain.scoring`; runs on the device of its
            parameters. Where its encoding is named so, contributions of pixels in stain space are
            split into stains, and those in colour shown with W(x).
        target: class to explain; the one of the highest score when omitted.
        out_mpp: micrometres per pixel of the map.
        batch_size: tiles per forward and backward pass.
        gallery: tiles kept with their pixels, for and against.
        scratch: folder for the map; a temporary one, left to the caller, when omitted.
        progress: wraps an iterable of batches, given their number and what is being done.
        normalise: what tiles go through as uint8 before they are encoded, such as the normalisation
            of stains the model was trained with; the gallery shows what it makes of them.

    Raises:
        LedgerError: the map does not account for the score.
        NoTissueError: there are no tiles.
        ValueError: ``target`` is no class, the slide is opened in another colour.
    """
    if slide.colour != grid.spec.colour:
        raise ValueError(
            f"slide {slide.slide_id!r} is opened with colour={slide.colour!r}, its tiles are of"
            f" {grid.spec.colour!r}"
        )
    if target is not None and target not in scorer.classes:
        raise ValueError(f"target must be one of {', '.join(scorer.classes)}; got {target!r}")
    count = len(grid)
    if not count:
        raise NoTissueError(
            f"slide {slide.slide_id!r} has no tiles: there is nothing to explain", slide.path
        )

    def batches(indices: NDArray[np.intp], what: str) -> Iterable[tuple[list[int], Tensor]]:
        total = -(-len(indices) // batch_size)
        read = read_batches(
            slide, grid, indices, batch_size, device=scorer.device, normalise=normalise
        )
        return progress(read, total, what)

    plan = scorer.plan(grid, batches, target)
    weights, logits, effects = plan.weights, plan.logits, plan.columns.get("removal_effect")
    own = np.full(count, np.nan)  # the number of each tile that is taken apart
    # A place behind the first layer mixes channels.
    channels = getattr(scorer.encoding, "name", None) if scorer.depth == PIXELS else None
    stains = STAINS if channels == "stain" else ()
    folder = Path(scratch or tempfile.mkdtemp(prefix="pathology-explain-"))
    box0 = grid[0].box
    start = partial(Stitcher, slide.size, slide.mpp, out_mpp, Size(box0.width, box0.height))
    stitcher = start(folder)
    by_stain = {name: start(folder / name) for name in stains}
    columns = {name: np.full(count, np.nan) for name in ("contribution", "positive", "negative")}
    columns |= {name: np.full(count, np.nan) for name in ("bias", "gap", *stains)}
    constants = dict(plan.constants)
    best, worst = _Gallery(gallery), _Gallery(gallery)
    places = (0, 0)
    for chosen, tiles in batches(np.flatnonzero(weights), "explaining"):
        images = scorer.encoding(tiles)
        explanation = plan.explain(images, chosen)
        values = explanation.contributions.double().cpu().numpy()
        places = (values.shape[1], values.shape[2])
        for name, part in split_stains(explanation, images).items() if stains else ():
            of_stain = part.double().cpu().numpy()
            columns[name][chosen] = of_stain.sum((1, 2))
            for row, index in enumerate(chosen):
                by_stain[name].add(grid[index].box, of_stain[row], weights[index])
        if logits is not None:
            logits[chosen] = explanation.logits.double().cpu().numpy()
        own[chosen] = explanation.logit.double().cpu().numpy()
        columns["contribution"][chosen] = values.sum((1, 2))
        columns["positive"][chosen] = values.clip(min=0).sum((1, 2))
        columns["negative"][chosen] = values.clip(max=0).sum((1, 2))
        columns["bias"][chosen] = explanation.bias.double().cpu().numpy()
        columns["gap"][chosen] = explanation.completeness_gap.cpu().numpy()
        for name, term in explanation.constants.items():
            share = float(weights[chosen] @ term.double().cpu().numpy())
            constants[name] = constants.get(name, 0.0) + share
        for row, index in enumerate(chosen):
            stitcher.add(grid[index].box, values[row], weights[index])
            strength = float(weights[index] * columns["contribution"][index])
            tile = partial(
                _report_tile,
                tiles[row],
                explanation,
                row,
                grid[index].box,
                float(weights[index]),
                None if logits is None else float(own[index]),
                None if effects is None else float(effects[index]),
                channels == "complement",
            )
            best.offer(strength, index, tile)
            worst.offer(-strength, index, tile)
    stitched = stitcher.finish()
    used = weights > 0
    score = float(weights[used] @ own[used]) if plan.score is None else plan.score
    ledger = Ledger(
        score=score,
        bias=plan.bias + float(weights[used] @ columns["bias"][used]),
        map_sum=stitched.map_sum,
        cut_off=stitched.cut_off,
        constants=constants,
        tolerance=float32_tolerance(score, stitched.absolute_sum),
    )
    ledger.check()
    boxes = grid.boxes()
    of_classes = {} if logits is None else dict(zip(scorer.classes, logits.T, strict=True))
    table = pd.DataFrame(
        {name: boxes[:, i] for i, name in enumerate(("x", "y", "width", "height"))}
        | {"tissue": grid.tissue, "weight": weights}
        | {f"logit_{name}": column for name, column in of_classes.items()}
        | columns
        | dict(plan.columns)
    )
    return SlideExplanation(
        slide.slide_id, plan.target, ledger, stitched, table, best.tiles(), worst.tiles(),
        {name: each.finish() for name, each in by_stain.items()}, scorer.depth, places,
    )  # fmt: skip


def _report_tile(
    tile: Tensor,
    explanation: Explanation,
    row: int,
    box: Box,
    weight: float,
    logit: float | None,
    removal_effect: float | None,
    in_colour: bool,
) -> ReportTile:
    """One tile with its pixels, in shares of the slide's score; W(x) as a picture ``in_colour``."""
    contributions = explanation.contributions[row].double().cpu().numpy()
    weights = explanation.weights[row].cpu().numpy()
    picture = colour_explanation(weights, contributions) if in_colour else None
    return ReportTile(
        image=tile.permute(1, 2, 0).cpu().numpy(),
        contributions=contributions * weight,
        box=box,
        logit=logit,
        removal_effect=removal_effect,
        weights_picture=picture,
    )
