"""A slide's explanation with layers over its map: how far members are apart, and nulls.

All of it is made by :func:`pathology.explain.slide.explain_targets`: as many explanations as there
are members and nulls, one after another, in the time that they take and the memory of one.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pathology.errors import LedgerError
from pathology.explain.layers.members import Member, check_classes, mean_of
from pathology.explain.layers.nulls import check_count, compare_with_nulls
from pathology.explain.layers.random_weights import with_random_weights
from pathology.explain.scorers.scorer import Batches, Scorer
from pathology.explain.slide import Progress, SlideExplanation, batches_of, explain_targets
from pathology.explain.targets import one_class
from pathology.maps.slide_map import SlideMap
from pathology.slides import Slide
from pathology.tiling import TileGrid

FITTED, AT_ONCE = 64, 16
"""Windows, evenly over the slide, that a null's batch norms take their statistics from; and how
many tiles at once, whatever ``batch_size``: statistics of other batches are other numbers."""


def explain_layers(
    slide: Slide,
    members: Sequence[Member],
    targets: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (),
    scratch: str | Path | None = None,
    **options: Any,
) -> list[SlideExplanation]:
    """Explain a slide's score by one member or the mean of several, and hold it against nulls.

    Args:
        slide: the slide.
        members: whose mean is explained; their tiles may differ.
        targets: what to explain; the class of the highest mean score, one for all members, when
            there is none.
        seeds: of nulls, each with random weights in the networks of the first member, on its
            tiles. They are held against that member's own map, which was made as theirs are: a
            mean of several holds less chance than any null.
        scratch: folder for the maps; a temporary one, left to the caller, when omitted.
        options: of :func:`~pathology.explain.slide.explain_targets`; ``progress`` is told which
            member or null it is about.

    Returns:
        An explanation per target, in order, with ``layers`` and what is ``told`` of them. Of
        several members it is their mean, see :func:`~pathology.explain.layers.members.mean_of`.

    Raises:
        LedgerError: a map does not account for its score; says of which member or null.
        NoTissueError, OutputError: as ``explain_targets``.
        ValueError: likewise; no members, members of other classes, a single null.
    """
    if not members:
        raise ValueError("at least one member is needed")
    if seeds:
        check_count(len(seeds))
    check_classes(members)
    folder = Path(scratch or tempfile.mkdtemp(prefix="pathology-explain-"))
    first, *others = members
    if others and not targets and all(len(member.grid) for member in members):
        targets = [_highest(slide, members, options)]
    series = _Series(slide, folder, options)
    found = [series.explain(first.scorer, first.grid, targets, "member 1" if others else "")]
    targets = [each.target for each in found[0]]
    for number, member in enumerate(others, 2):
        found.append(series.explain(member.scorer, member.grid, targets, f"member {number}"))
    nulls: list[list[SlideExplanation]] = []
    names: list[str] = []
    for seed in seeds:
        what = f"null {len(nulls) + 1}"
        images = partial(_evenly, slide, first, _about(what, options))
        scorer, names = with_random_weights(first.scorer, seed, images)
        of_null = series.explain(scorer, first.grid, targets, what)
        nulls.append([replace(each, tiles=pd.DataFrame()) for each in of_null])
    results = []
    for place in range(len(targets)):
        own = [each[place] for each in found]
        result = mean_of(members, own, folder / f"mean{place}") if others else own[0]
        if seeds:
            of_nulls = dict(zip(seeds, (each[place] for each in nulls), strict=True))
            layers, told = _held_against(own[0], of_nulls, result.stitched.folder / "nulls")
            told |= {"of": first.name, "randomised": names}
            result = replace(
                result, layers={**result.layers, **layers}, told={**result.told, "null": told}
            )
        results.append(result)
    series.clear(0 if others else 1)
    return results


@dataclass
class _Series:
    """One explanation after another, each in a folder of its own."""

    slide: Slide
    folder: Path
    options: Mapping[str, Any]
    done: int = 0

    def clear(self, first: int) -> None:
        """Remove the maps of all from ``first`` on: what was made of them is there."""
        for number in range(first, self.done):
            shutil.rmtree(self._of(number))

    def _of(self, number: int) -> Path:
        return self.folder / f"part{number}"

    def explain(
        self, scorer: Scorer, grid: TileGrid, targets: Sequence[str], what: str
    ) -> list[SlideExplanation]:
        options, is_first = _about(what, self.options), not self.done
        if not is_first:
            options["gallery"] = 0  # tiles are shown of the first
        scratch = self._of(self.done)
        self.done += 1
        try:
            found = explain_targets(self.slide, grid, scorer, targets, scratch=scratch, **options)
        except LedgerError as error:
            raise LedgerError(f"{what}: {error}" if what else str(error)) from error
        # Pictures of the slide, one for each, would be what grows.
        return found if is_first else [replace(each, view=None) for each in found]


def _evenly(slide: Slide, member: Member, options: Mapping[str, Any]) -> Iterator[Tensor]:
    """Some windows all over the slide, as the network takes them."""
    scorer, grid = member.scorer, member.grid
    windows = scorer.windows(grid, np.arange(len(grid)))
    places = np.linspace(0, len(windows) - 1, min(FITTED, len(windows))).round().astype(int)
    batches = _batches(slide, member, {**options, "batch_size": AT_ONCE})
    for _, pixels in batches([windows[i] for i in places], "fitting norms"):
        yield scorer.encoding(pixels)


def _batches(slide: Slide, member: Member, options: Mapping[str, Any]) -> Batches:
    """What reads a member's windows as ``explain_targets`` would."""
    known = ("batch_size", "progress", "normalise")
    told = {name: options[name] for name in known if name in options}
    return batches_of(slide, member.grid, member.scorer, **told)


def _highest(slide: Slide, members: Sequence[Member], options: Mapping[str, Any]) -> str:
    """The class of the highest mean score: a pass over each member's tiles, nothing explained."""
    classes = members[0].scorer.classes
    asked = [one_class(classes, place) for place in range(len(classes))]
    scores = np.zeros(len(classes))
    for number, member in enumerate(members, 1):
        batches = _batches(slide, member, _about(f"member {number}", options))
        plan = member.scorer.plan(member.grid, batches, asked, whole=True)
        scores += [each.known_score for each in plan.targets]
    return classes[int(np.argmax(scores))]


def _held_against(
    own: SlideExplanation, nulls: Mapping[int, SlideExplanation], folder: Path
) -> tuple[dict[str, SlideMap], dict[str, Any]]:
    """The layers of nulls, by their seeds, and what is told of them."""
    maps = [each.stitched for each in nulls.values()]
    layers, figures = compare_with_nulls(own.stitched, maps, folder)
    each_one = [
        {"seed": seed, "score": null.logit, "ledger": null.ledger.to_dict()}
        for seed, null in nulls.items()
    ]
    return layers, {"nulls": each_one, **figures.to_dict()}


def _about(what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options whose progress says what it is about."""
    progress: Progress | None = options.get("progress")
    if progress is None or not what:
        return dict(options)

    def named(batches: Iterable[Any], total: int, doing: str) -> Iterable[Any]:
        return progress(batches, total, f"{what}: {doing}")

    return {**options, "progress": named}
