"""What every explanation of a slide can do, fresh or read back: be asked, be shown, be printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pathology.explain.ledger import Ledger
from pathology.explain.results.view import SlideView
from pathology.geometry import Box, Size
from pathology.maps.slide_map import SlideMap

if TYPE_CHECKING:
    from pathology.explain.results.figure import SlideFigure
    from pathology.explain.results.stored import StoredExplanation

FIGURE_PX = 2200
"""Of a map's longer side at most: 180 mm at 300 dpi."""


class Shown:
    """An explanation as something to look at; what it shows is told by the classes derived."""

    if TYPE_CHECKING:
        # Not at run time: a dataclass would take them for the defaults of its fields.
        @property
        def slide_id(self) -> str: ...
        @property
        def target(self) -> str: ...
        @property
        def ledger(self) -> Ledger: ...
        @property
        def tiles(self) -> pd.DataFrame: ...
        @property
        def view(self) -> SlideView | None: ...
        @property
        def record(self) -> Mapping[str, Any]: ...

    def overview(self, max_side: int) -> SlideMap:
        """The additive map, reduced by sums until no side is above ``max_side``."""
        raise NotImplementedError

    def stored(self, folder: str | Path) -> "StoredExplanation":
        """The explanation as it is on disk; a fresh one writes its numbers to ``folder`` first.

        Raises:
            OutputError: they cannot be written.
        """
        raise NotImplementedError

    @property
    def logit(self) -> float:
        """The slide's score for the target."""
        return self.ledger.score

    def top(self, n: int) -> list[Box]:
        """Boxes of the ``n`` tiles that add most to the score, the strongest first."""
        share = self.tiles["weight"] * self.tiles["contribution"]
        rows = self.tiles.loc[share.nlargest(n).index]
        return [Box(*row) for row in rows[["x", "y", "width", "height"]].itertuples(index=False)]

    def write_figure(self, path: str | Path, *, limit: float | None = None, dpi: int = 300) -> None:
        """Write a figure for papers, see :func:`pathology.explain.results.figure.write_figure`.

        Args:
            path: ``*.pdf`` or ``*.png``.
            limit: density at which colours saturate, in logits per mm2; from the map when omitted.
            dpi: of its pictures.

        Raises:
            OutputError: the file cannot be written.
            ValueError: another kind of file, or a limit that is not positive.
        """
        from pathology.explain.results.figure import write_figure  # matplotlib, imported late

        write_figure(path, figure_of([self], limit), self.record, dpi=dpi)

    def __repr__(self) -> str:
        ledger = self.ledger
        verdict = "closed" if ledger.is_closed else "NOT CLOSED"
        return (
            f"{type(self).__name__}(slide {self.slide_id!r}, target {self.target!r}, score"
            f" {ledger.score:+.6g} logits, {len(self.tiles)} tiles, gap {ledger.gap:.1e} {verdict})"
        )

    def _repr_html_(self) -> str:
        from pathology.explain.results.notebook import explanation_html

        return explanation_html(self)


def write_comparison(
    results: Sequence[Shown],
    path: str | Path,
    names: Sequence[str] | None = None,
    *,
    limit: float | None = None,
    dpi: int = 300,
) -> None:
    """Write explanations of one slide side by side, on one scale, with their ledgers.

    Args:
        results: of several targets, models or depths; of the same slide.
        path: ``*.pdf`` or ``*.png``.
        names: what to call them; their targets when omitted.
        limit: density at which colours saturate, in logits per mm2; the largest that one of them
            would have by itself when omitted.
        dpi: of its pictures.

    Raises:
        OutputError: the file cannot be written.
        ValueError: no explanations, of several slides, or not as many names; as
            :meth:`Shown.write_figure`.
    """
    from pathology.explain.results.figure import write_figure

    figure = figure_of(results, limit, names)
    record = {
        "slide_id": figure.slide_id,
        "explanations": [dict(result.record) for result in results],
    }
    write_figure(path, figure, record, dpi=dpi)


def figure_of(
    results: Sequence[Shown], limit: float | None = None, names: Sequence[str] | None = None
) -> "SlideFigure":
    """What a figure of explanations of one slide is made of; see :func:`write_comparison`."""
    from pathology.explain.results.figure import Panel, SlideFigure

    if len(slides := {result.slide_id for result in results}) != 1:
        raise ValueError(f"a figure is of one slide, got {', '.join(sorted(slides)) or 'none'}")
    names = [result.target for result in results] if names is None else names
    if len(names) != len(results):
        raise ValueError(f"names must be as many as explanations, {len(results)}; got {len(names)}")
    maps = [result.overview(FIGURE_PX) for result in results]
    view = next((result.view for result in results if result.view is not None), None)
    if view is None:
        box = maps[0].box
        blank = np.full((1, 1, 3), 255, np.uint8)
        view = SlideView(Size(box.right, box.bottom), maps[0].slide_mpp, blank)
    told = [result.record.get("provenance", {}) for result in results]
    shared = {
        name: value for name, value in told[0].items() if all(t.get(name) == value for t in told)
    }
    panels = [
        Panel(name, result.ledger, slide_map)
        for name, result, slide_map in zip(names, results, maps, strict=True)
    ]
    return SlideFigure(
        results[0].slide_id, view.size, view.mpp, view.thumbnail, panels, shared, limit
    )
