"""Explaining a slide: tile contributions, weighted as the score weighs tiles, on one map.

::

    score = bias + constants + sum_i w_i sum_p c_ip = bias + constants + sum of the map + cut off

The score comes from the model's forward pass, the map from the contributions; the ledger says how
far apart they are, and an explanation whose ledger does not close is an error.

Reading, the model, and stitching take turns on nothing: windows are read ahead, and what is found
in one batch is put on the map while the next goes through the model.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bcos_vit.explain import Explanation
from bcos_vit.explain.trace import PIXELS
from bcos_vit.stain_space import STAINS
from pathology.errors import NoTissueError, OutputError
from pathology.explain.account import Account, Canvas
from pathology.explain.ledger import Ledger
from pathology.explain.results.report import ReportTile
from pathology.explain.results.shown import Shown
from pathology.explain.results.stored import StoredExplanation
from pathology.explain.results.view import SlideView
from pathology.explain.scorers.scorer import Batches, Plan, Scorer, Window
from pathology.explain.stitching.stitch import Stitched
from pathology.explain.targets import parse_target
from pathology.explain.tile_reader import read_batches
from pathology.geometry import Size
from pathology.maps.pyramid import shrink
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_folder
from pathology.slides import Slide
from pathology.tiling import TileGrid

Tiles = Callable[[Tensor], Tensor]
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def _silent(batches: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    return batches


@dataclass(frozen=True, repr=False)
class SlideExplanation(Shown):
    """Why a slide's score for one target is what it is.

    Args:
        slide_id: the slide.
        target: what is explained: a class, or a difference such as ``"tumour - normal"``.
        ledger: how the score adds up; it closes.
        stitched: the map on disk, valid as long as its folder.
        tiles: one row per tile: ``x, y, width, height`` in level-0 px, ``tissue``, ``weight``, a
            ``logit_<class>`` per class, ``contribution`` (to the tile's own logit, in logits), its
            ``positive`` and ``negative`` parts, ``bias``, ``gap``. Tiles of weight 0 are not
            explained; their contribution is NaN. Of tiles that stay whole or share a window only
            the contribution is known, not its parts. For a model in stain space also what each
            stain adds to ``contribution``, by its name. Tiles have no logits of their own in a
            slide model; there, ``contribution`` is to the slide's logit, ``attention`` what is
            usually drawn, and ``removal_effect`` the slide's logit minus what it would be without
            the tile (told where there is a closed form).
        tiles_for, tiles_against: the tiles that argue most for and against, with pixels.
        stains: for a model in stain space, a map of each stain's part of the contributions; pixel
            by pixel they sum to the map, up to the rounding of float32, except where undivided
            tiles lie: those are on the map alone. Empty at a depth, where a place mixes them.
        depth: where explanations stop.
        places: ``(rows, columns)`` of a tile at that depth; what falls on a place is spread evenly
            over its share of the tile.
        layers: further maps over the slide by name, see :mod:`pathology.explain.layers.explain`.
        told: what is to be said of them, as JSON has it.
        slide: the slide itself, open or closed.
        view: the slide as pictures show it.
        settings: what decided the numbers, JSON values by name, where that is known.
        provenance: what made it, in words.
        coefficients: of each class's logit in the target; those not named are 0.
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
    layers: dict[str, SlideMap] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    slide: Slide | None = None
    view: SlideView | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)

    @property
    def contributions(self) -> SlideMap:
        """The additive map in logits; its sum is in the ledger."""
        return self.stitched.additive

    @property
    def stain_sums(self) -> dict[str, float]:
        """Each stain's part of the score in logits: together the ledger's map and cut-off.

        What ``undivided`` tiles add, where there are any, is told by that name.
        """
        sums = {name: part.map_sum + part.cut_off for name, part in self.stains.items()}
        whole = self.ledger.undivided
        return sums | ({"undivided": whole.net} if sums and whole else {})

    @property
    def record(self) -> dict[str, Any]:
        """What every file about it carries, as JSON has it."""
        return {
            "slide_id": self.slide_id,
            "target": self.target,
            "coefficients": dict(self.coefficients),
            "ledger": self.ledger.to_dict(),
            "stains": self.stain_sums,
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            **({"layers": self.told} if self.told else {}),
        }

    def overview(self, max_side: int) -> SlideMap:
        """The additive map, reduced by sums until no side is above ``max_side``."""
        return shrink(self.contributions, max_side)

    def stored(self, folder: str | Path) -> StoredExplanation:
        """The explanation as it is on disk, written to ``folder`` without anything to look at.

        Raises:
            OutputError: the folder is there already, or cannot be written.
            ValueError: the explanation does not know its slide.
        """
        from pathology.explain.results.write import write_numbers

        with complete_folder(Path(folder)) as draft:
            write_numbers(self, self._slide, draft)
        return StoredExplanation.load(folder)

    def save(
        self, folder: str | Path, formats: Sequence[str] = (), *, overwrite: bool = False
    ) -> None:
        """Write all files, see :func:`pathology.explain.results.write_results`.

        :func:`pathology.explain.results.stored.load_explanation` reads them back.

        Args:
            folder: appears complete, or not at all.
            formats: further formats: ``"ome-zarr"``, ``"dicom"``.
            overwrite: replace the explanation that is there.

        Raises:
            OutputError: the folder is there already, or cannot be written.
            StampMismatchError: it is there, and holds something else than an explanation.
            ValueError: the explanation does not know its slide, or there is no such format.
        """
        from pathology.explain.results.write import check_formats, stored_record, write_results

        slide = self._slide
        check_formats(formats)
        folder = Path(folder)
        if folder.exists():
            if not overwrite:
                raise OutputError(f"{folder}: is there already; choose another, or overwrite=True")
            stored_record(folder)  # replace explanations, nothing else
        with complete_folder(folder) as draft:
            write_results(self, slide, draft, dict(self.settings), dict(self.provenance), formats)

    @property
    def _slide(self) -> Slide:
        """The slide, which what is written tells of."""
        if self.slide is None:
            raise ValueError("this explanation does not know its slide, which saving needs")
        return self.slide


def explain_slide(
    slide: Slide, grid: TileGrid, scorer: Scorer, target: str | None = None, **options: Any
) -> SlideExplanation:
    """Explain a slide's score for one target.

    Args:
        slide: the slide.
        grid: its tiles.
        scorer: the model and what makes a score of its tiles.
        target: what to explain; the class of the highest score when omitted.
        options: of :func:`explain_targets`.

    Raises:
        LedgerError, NoTissueError, ValueError: as :func:`explain_targets`.
    """
    targets = [] if target is None else [target]
    (explanation,) = explain_targets(slide, grid, scorer, targets, **options)
    return explanation


def explain_targets(
    slide: Slide,
    grid: TileGrid,
    scorer: Scorer,
    targets: Sequence[str] = (),
    *,
    out_mpp: float = 8.0,
    batch_size: int = 16,
    detail: float = 1.0,
    gallery: int = 6,
    scratch: str | Path | None = None,
    progress: Progress = _silent,
    normalise: Tiles | None = None,
) -> list[SlideExplanation]:
    """Explain a slide's score for several targets in one pass over its tiles.

    Memory grows with the targets by what each map needs, see
    :class:`~pathology.explain.stitching.stitch.Stitcher`; a batch is taken apart for one after
    another.

    Args:
        slide: the slide, in the colour that ``grid.spec`` asks for.
        grid: its tiles.
        scorer: the model and what makes a score of its tiles: ``PooledLogits``, ``DenseLogits`` or
            ``AggregatedFeatures``, of :mod:`pathology.explain.scorers`; runs on the device of its
            parameters. Where its encoding is named so, contributions of pixels in stain space are
            split into stains, and those in colour shown with W(x).
        targets: what to explain: names of classes, or differences (``"tumour - normal"``,
            ``"tumour - mean"``); the class of the highest score when there is none.
        out_mpp: micrometres per pixel of the map.
        batch_size: tiles per forward and backward pass, or as many larger windows as they equal.
        detail: share of the sum of the tiles' absolute contributions that is taken apart, the
            strongest tiles first. What the others add is known from the first pass and spread
            evenly over each: score, sum and tile contributions stay exact, and the ledger says how
            much is undivided. 1 takes all tiles apart.
        gallery: tiles kept with their pixels, for and against.
        scratch: folder for the maps; a temporary one, left to the caller, when omitted.
        progress: wraps an iterable of batches, given their number and what is being done.
        normalise: what tiles go through as uint8 before they are encoded, such as the normalisation
            of stains the model was trained with; the gallery shows what it makes of them.

    Returns:
        An explanation per target, in order.

    Raises:
        LedgerError: a map does not account for its score.
        NoTissueError: there are no tiles.
        ValueError: a target is no class, the slide is opened in another colour, ``detail`` is no
            share, another number is out of range.
    """
    if slide.colour != grid.spec.colour:
        raise ValueError(
            f"slide {slide.slide_id!r} is opened with colour={slide.colour!r}, its tiles are of"
            f" {grid.spec.colour!r}"
        )
    if not 0 < detail <= 1:
        raise ValueError(f"detail must be above 0 and at most 1, got {detail}")
    if batch_size < 1 or gallery < 0 or not 0 < out_mpp < math.inf:
        raise ValueError(
            "out_mpp must be positive and finite, batch_size at least 1 and gallery at least 0; got"
            f" {out_mpp}, {batch_size} and {gallery}"
        )
    asked = [parse_target(text, scorer.classes) for text in targets]
    if not len(grid):
        raise NoTissueError(
            f"slide {slide.slide_id!r} has no tiles: there is nothing to explain", slide.path
        )

    batches = batches_of(
        slide, grid, scorer, batch_size=batch_size, progress=progress, normalise=normalise
    )
    plan = scorer.plan(grid, batches, asked, whole=detail < 1)
    divided = _divided(plan, detail)
    windows = scorer.windows(grid, np.flatnonzero(divided))
    largest = windows[0].box if windows else grid[0].box
    canvas = Canvas(slide.size, slide.mpp, out_mpp, Size(largest.width, largest.height))
    # A place behind the first layer mixes channels.
    channels = getattr(scorer.encoding, "name", None) if scorer.depth == PIXELS else None
    folder = Path(scratch or tempfile.mkdtemp(prefix="pathology-explain-"))
    accounts = [
        Account(
            each,
            grid,
            canvas,
            folder / str(number),
            undivided=np.flatnonzero((each.weights > 0) & ~divided),
            stains=STAINS if channels == "stain" else (),
            gallery=gallery,
            in_colour=channels == "complement",
            logits=plan.logits,
        )
        for number, each in enumerate(plan.targets)
    ]
    with _Behind() as behind:
        for chosen, pixels in batches(windows, "explaining"):
            images = scorer.encoding(pixels)
            for account, found in zip(accounts, plan.explain(images, chosen), strict=True):
                # The tiles' own logits are the same for all targets.
                logits = plan.logits if account is accounts[0] else None
                behind.do(partial(_take, account, logits, chosen, pixels, images, found))
    view = SlideView.of(slide)
    return [replace(_result(slide, scorer, account), view=view) for account in accounts]


def _take(
    account: Account,
    logits: NDArray[np.float64] | None,
    windows: list[Window],
    pixels: Tensor,
    images: Tensor,
    found: Explanation,
) -> None:
    """Note an explanation, and in ``logits`` those of tiles that are windows of their own."""
    if logits is not None and all(len(window.tiles) == 1 for window in windows):
        own = found.logits[:, : logits.shape[1]].double().cpu().numpy()
        logits[[window.tiles[0] for window in windows]] = own
    account.take(windows, pixels, images, found)


def batches_of(
    slide: Slide,
    grid: TileGrid,
    scorer: Scorer,
    *,
    batch_size: int = 16,
    progress: Progress = _silent,
    normalise: Tiles | None = None,
) -> Batches:
    """What reads a scorer's windows, with the options of :func:`explain_targets`."""

    def batches(windows: Sequence[Window], what: str) -> Iterable[tuple[list[Window], Tensor]]:
        at_once = _at_once(batch_size, grid, windows)
        read = read_batches(
            slide,
            windows,
            lambda window: window.box,
            grid.spec.mpp,
            at_once,
            device=scorer.device,
            normalise=normalise,
        )
        return progress(read, -(-len(windows) // at_once), what)

    return batches


def _at_once(batch_size: int, grid: TileGrid, windows: Sequence[Window]) -> int:
    """How many windows take the memory of so many tiles, but one at least."""
    if not windows:
        return batch_size
    width, height = grid.tile_size
    return max(1, int(batch_size * width * height / windows[0].box.area + 0.5))


def _divided(plan: Plan, detail: float) -> NDArray[np.bool_]:
    """Which tiles are taken apart: those that carry the share ``detail`` for some target.

    One at least, also of a slide whose tiles all add nothing.
    """
    divided = np.zeros(len(plan.targets[0].weights), bool)
    for each in plan.targets:
        used = np.flatnonzero(each.weights > 0)
        if detail == 1:
            divided[used] = True
            continue
        if each.shares is None:
            raise ValueError("the plan does not tell the tiles' own numbers")
        strengths = np.abs(each.shares[used])
        order = np.argsort(-strengths, kind="stable")
        carried = np.cumsum(strengths[order])
        divided[used[order[: int(np.searchsorted(carried, detail * carried[-1])) + 1]]] = True
    return divided


def _result(slide: Slide, scorer: Scorer, account: Account) -> SlideExplanation:
    stitched, stains, ledger = account.finish()
    best, worst = account.strongest()
    target = account.plan.target
    shares = zip(scorer.classes, target.coefficients, strict=True)
    return SlideExplanation(
        slide.slide_id, target.name, ledger, stitched, account.table(scorer.classes),
        best, worst, stains, scorer.depth, account.places, slide=slide,
        coefficients={name: share for name, share in shares if share},
    )  # fmt: skip


class _Behind:
    """Does one thing after another in a thread of its own, at most two behind the caller."""

    def __enter__(self) -> "_Behind":
        self._pool = ThreadPoolExecutor(1)
        self._ahead: list[Future[None]] = []
        return self

    def do(self, work: Callable[[], None]) -> None:
        """Have it done; raises what earlier work has raised."""
        while len(self._ahead) > 1:
            self._ahead.pop(0).result()
        self._ahead.append(self._pool.submit(work))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for each in self._ahead:
                each.result()
