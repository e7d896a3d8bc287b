"""What a score is without a region: foretold twice from the explanation, and computed anew.

A region is painted over with one colour. Of that three things are told, and how far the first two
are from the third:

* by subtraction, as the ledger has it: what the region contributes is taken away;
* linearly, with W(x) held: what the painted pixels would give through the weights that the network
  had for the pixels before, ``sum_i w_i <W(x_i), x'_i - x_i>``;
* by a forward pass over the painted tiles. W(x) changes with its input, so this is a test of the
  first two and not an identity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from bcos_vit.explain.trace import PIXELS
from pathology.explain.scorers.scorer import Window
from pathology.explain.slide import Progress, batches_of
from pathology.viewer.model.question import Answer, MaskQuestion
from pathology.viewer.model.region import Region, fill_colour
from pathology.viewer.model.worker.subject import BATCH, Member, Subject


def ask_mask(subject: Subject, question: MaskQuestion, progress: Progress) -> Answer:
    """Paint a region over, and ask the model again.

    A pixel of a tile, as the model reads it, is painted when its centre lies in the region; tiles
    that overlap are painted each, and so is the halo that a dense model sees. Tiles that the region
    does not meet are not run: of a tile model their stored logits are taken, of a slide model the
    features that they had. The score is pooled or aggregated anew, so tiles may come to count that
    did not.

    Args:
        subject: the explanation.
        question: which region, and its colour.
        progress: wraps what is gone through; may raise to give up.

    Returns:
        ``target``; ``score``: ``stored``, and ``recomputed`` the same way before painting, their
        ``tolerance`` and whether it ``differs``; ``subtraction``: what is ``inside``, and the
        score ``predicted``; ``linear``: ``change`` and ``predicted``, null for a model that
        explains no pixels; ``real``: the score of the painted slide, and its ``change``;
        ``gaps``: ``real`` less what was predicted, by ``subtraction`` and ``linear``; ``fill``:
        ``name`` and ``colour``; ``tiles``: ``run`` of ``all``; ``area_mm2`` of the region and
        ``painted_mm2`` in tiles, counted for each tile; ``depth`` of what was subtracted; and
        ``notes``. All scores in logits, predictions from ``score.recomputed``.

    Raises:
        ValueError: polygons without an area on the slide.
    """
    region = Region(question.polygons, subject.slide.size)
    if not region.geometry.area > 0:
        raise ValueError("polygons have no area on the slide; draw a region")
    colour = fill_colour(question.fill, subject.slide, subject.members[0].grid)
    found = [_paint(subject, member, region, colour, progress) for member in subject.members]
    ledger, mpp = subject.explanation.ledger, subject.slide.mpp
    before, real = (
        math.fsum(values) for values in zip(*(each.scores for each in found), strict=True)
    )
    inside = math.fsum(each.inside for each in found)
    change = math.fsum(each.linear for each in found)
    is_linear = all(member.in_pixels for member in subject.members)
    linear = {"change": change, "predicted": before + change} if is_linear else None
    run = sum(each.run for each in found)
    differs = not abs(before - ledger.score) <= ledger.tolerance
    result = {
        "target": subject.target.name,
        "score": {
            "stored": ledger.score,
            "recomputed": before,
            "tolerance": ledger.tolerance,
            "differs": differs,
        },
        "subtraction": {"inside": inside, "predicted": before - inside},
        "linear": linear,
        "real": real,
        "change": real - before,
        "gaps": {
            "subtraction": real - (before - inside),
            "linear": real - (before + change) if is_linear else None,
        },
        "fill": {"name": question.fill, "colour": "#{:02x}{:02x}{:02x}".format(*colour)},
        "tiles": {"run": run, "all": len(subject.tiles)},
        "area_mm2": region.area_mm2(mpp),
        "painted_mm2": sum(each.painted for each in found) * mpp.x * mpp.y * 1e-6,
        "depth": subject.members[0].scorer.depth,
        "notes": _notes(subject, run, differs, is_linear),
    }
    return Answer(result, {})


@dataclass
class _Painted:
    """What painting a region does to one member; its share of all but the last two.

    Args:
        scores: before and after.
        inside: what the region contributes.
        linear: what changes with W(x) held.
        run: tiles that were run.
        painted: level-0 pixels, counted for each window.
    """

    scores: tuple[float, float] = (0.0, 0.0)
    inside: float = 0.0
    linear: float = 0.0
    run: int = 0
    painted: float = 0.0


def _paint(
    subject: Subject,
    member: Member,
    region: Region,
    colour: tuple[int, int, int],
    progress: Progress,
) -> _Painted:
    scorer, grid, known = member.scorer, member.grid, subject.known(member, progress)
    touched = np.flatnonzero(region.touched(_seen_boxes(member)))
    target, painted = subject.target, _Painted(run=len(touched))
    plan = scorer.planned(grid, known, [target])
    pixel_plan = plan
    if scorer.depth != PIXELS and member.in_pixels is not None:
        pixel_plan = member.in_pixels.planned(grid, known, [target])
    before, after = known.clone(), known.clone()
    windows = scorer.windows(grid, touched)
    read = batches_of(subject.slide, grid, scorer, batch_size=BATCH, progress=progress)
    for chosen, pixels in read(windows, "running the painted tiles") if windows else ():
        height, width = pixels.shape[2:]
        masks = np.stack([region.mask(window.box, height, width) for window in chosen])
        painted.painted += masks.sum() * chosen[0].box.area / (height * width)
        is_inside = torch.from_numpy(masks).to(pixels.device)
        fill = torch.tensor(colour, dtype=torch.uint8, device=pixels.device)[:, None, None]
        images = member.seen(pixels)
        changed = member.seen(torch.where(is_inside[:, None], fill, pixels))
        for seen, rows in ((images, before), (changed, after)):
            numbers, values = scorer.look(grid, seen, chosen)
            rows[numbers] = values.to(rows)
        scales = _scales(plan.targets[0].weights, chosen).to(images.device)
        if not scales.any():
            continue
        (found,) = plan.explain(images, chosen)
        rows_columns = found.contributions.shape[1], found.contributions.shape[2]
        shares = adaptive_avg_pool2d(is_inside.double(), rows_columns)
        painted.inside += float(scales @ (found.contributions.double() * shares).sum((1, 2)))
        if member.in_pixels is None:
            continue
        if pixel_plan is not plan:
            (found,) = pixel_plan.explain(images, chosen)
        step = (changed - images).double()
        painted.linear += float(scales @ (found.weights.double() * step).sum((1, 2, 3)))
    if not torch.isfinite(after).all():
        raise ValueError("the model's numbers of painted tiles are not finite; take another fill")
    plans = [scorer.planned(grid, rows, [target]).targets[0] for rows in (before, after)]
    painted.scores = plans[0].known_score * member.share, plans[1].known_score * member.share
    painted.inside *= member.share
    painted.linear *= member.share
    return painted


def _seen_boxes(member: Member) -> NDArray[np.float64]:
    """What the model sees of the slide for each tile, ``(n, 4)``."""
    boxes, (x, y) = member.grid.boxes(), member.halo
    return boxes + np.array([-x, -y, 2 * x, 2 * y])


def _scales(weights: NDArray[np.float64], windows: Sequence[Window]) -> Tensor:
    """What windows count: a tile alone its weight; those of several have their weights in them."""
    tiles = [list(window.tiles) for window in windows]
    return torch.tensor(
        [weights[each[0]] if len(each) == 1 else float(weights[each].any()) for each in tiles],
        dtype=torch.float64,
    )


def _notes(subject: Subject, run: int, differs: bool, is_linear: bool) -> list[str]:
    """What is to be said beside the numbers."""
    depth, undivided = subject.members[0].scorer.depth, subject.explanation.ledger.undivided
    notes = []
    if not run:
        notes.append("the region meets no tile: the score does not depend on it")
    if differs:
        notes.append(
            "the score before, recomputed, is further off the stored one than float32 explains;"
            " predictions start from the recomputed one"
        )
    if depth != PIXELS:
        notes.append(
            f"subtracted is what places of {depth} contribute, by the share of each inside the"
            " region; a place sees more than it covers"
        )
    if not is_linear:
        notes.append("no linear prediction: the model cannot be explained to pixels")
    if undivided is not None and depth == PIXELS:
        notes.append(
            "tiles that the map shows undivided are taken apart here, so what is subtracted may"
            " differ from the map's sum in the region"
        )
    return notes
