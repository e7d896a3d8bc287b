"""A tile taken apart anew: the same numbers as stored, and what is in it at full resolution."""

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bcos_vit.explain import Explanation
from bcos_vit.explain.trace import PIXELS
from bcos_vit.render import colour_explanation
from pathology.explain.ledger import float32_tolerance
from pathology.explain.scorers.dense_logits import DenseLogits
from pathology.explain.scorers.scorer import TILES, Window
from pathology.explain.slide import Progress, batches_of
from pathology.explain.targets import Target
from pathology.geometry import Mpp
from pathology.viewer.model.question import Answer, TileQuestion
from pathology.viewer.model.worker.subject import AnyScorer, Member, Subject

MOST_CLASSES = 8
"""Classes that are all explained unless it is said which."""


def ask_tile(subject: Subject, question: TileQuestion, progress: Progress) -> Answer:
    """Take a tile apart for the explanation's target, and for others.

    Args:
        subject: the explanation.
        question: which tile, for what.
        progress: wraps what is gone through; may raise to give up.

    Returns:
        ``index``; ``depth``, with ``explained_depth`` and ``depths`` that can be asked for;
        ``places`` ``[rows, columns]`` of the map; ``box`` ``[x, y, width, height]`` in level-0
        pixels that the map and the pictures cover (of a dense model with the halo around the
        tile); ``tile.png``, as read, ``normalised.png`` where a normaliser is in between.

        ``maps``, the explanation's target first: ``target``; ``values``, the name of the part,
        ``(height, width)`` float32 little-endian in logits of the slide's score per mm2;
        ``largest`` of them without sign; ``weight`` that they are multiplied by, ``counts`` false
        where the score does not count the tile, which is then shown with the weight of those that
        it does count; ``sum`` of contributions times weight, in logits, with its ``positive`` and
        ``negative`` part; ``own``: the tile's ``number`` = ``contribution`` + ``bias`` +
        ``constants`` with the ``gap`` between these, and the ``tolerance`` of float32; ``picture``,
        the name of W(x) in colour, null where it has none. Pixels are ``pixel_um`` wide and high.

        ``check``: ``stored`` and ``recomputed`` numbers by name, ``differences``, ``tolerance``,
        ``differs`` and in that case ``line``, which says of what the numbers are not.

        ``notes``: lines to show beside it.

    Raises:
        ValueError: there is no such tile, target or depth.
    """
    member, place = subject.member(question.index)
    targets = _targets(subject, question)
    scorer, notes = _scorer_at(member, question.depth)
    known = subject.known(member, progress)
    alone = _alone(member.scorer)
    (window,) = alone.windows(member.grid, np.array([place]))
    read = batches_of(subject.slide, member.grid, alone)
    ((_, pixels),) = list(read([window], "reading"))
    normal = pixels if member.normalise is None else member.normalise(pixels)
    images = alone.encoding(normal)

    plan = alone.planned(member.grid, known, [subject.target])
    (found,) = plan.explain(images, [window])
    own = _own(found, _scale(subject, member))
    check = _check(subject, question.index, own, _logits(alone, member, images, window))
    if check["line"]:
        notes.append(check["line"])
    if not check["stored"]:
        notes.append("no number of this tile is stored: what is recomputed is held against none")

    parts = {"tile.png": _png(pixels[0])}
    if member.normalise is not None:
        parts["normalised.png"] = _png(normal[0])
        notes.append("the model sees tiles normalised; both pictures are there")
    plan = _alone(scorer).planned(member.grid, known, targets)
    maps = []
    in_colour = getattr(alone.encoding, "name", None) == "complement"
    explained = progress(plan.explain(images, [window]), len(targets), "explaining")
    for number, (target, found) in enumerate(zip(targets, explained, strict=True)):
        weight, counts = _weight(plan.targets[number].weights, place)
        shares = found.contributions[0].double().cpu().numpy() * weight * member.share
        density, told = _density(shares, window, subject.slide.mpp)
        parts[f"map/{number}"] = density.tobytes()
        picture = None
        if in_colour and found.depth == PIXELS:
            picture = f"weights/{number}.png"
            parts[picture] = _picture_of_weights(found)
        told |= {
            "target": target.name,
            "values": f"map/{number}",
            "weight": weight * member.share,
            "counts": counts,
            "own": _own(found, _scale(subject, member)),
            "picture": picture,
        }
        maps.append(told)
    if "weights/0.png" in parts:
        parts["weights.png"] = parts["weights/0.png"]
    if not all(each["counts"] for each in maps):
        notes.append(
            "the score does not count this tile (weight 0): it is shown as if it had the weight of"
            " those that it does count"
        )
    if len(subject.members) > 1:
        notes.append(f"the score is a mean of {len(subject.members)}; this tile is of one of them")
    box = window.box
    result = {
        "index": question.index,
        "box": [box.x, box.y, box.width, box.height],
        "depth": scorer.depth,
        "explained_depth": member.scorer.depth,
        "depths": _depths(member),
        "places": list(found.contributions.shape[1:]),
        "tile": "tile.png",
        "normalised": "normalised.png" if "normalised.png" in parts else None,
        "maps": maps,
        "check": check,
        "notes": notes,
    }
    return Answer(result, parts)


def _targets(subject: Subject, question: TileQuestion) -> list[Target]:
    """The explanation's, and those asked for."""
    classes, names = subject.members[0].scorer.classes, question.targets
    if names is None:
        names = tuple(classes) if len(classes) <= MOST_CLASSES else ()
    found: dict[tuple[float, ...], Target] = {}
    for target in (subject.target, *map(subject.named, names)):
        found.setdefault(target.coefficients, target)
    return list(found.values())


def _depths(member: Member) -> list[str]:
    return list(dict.fromkeys([*([PIXELS] if member.in_pixels else []), member.scorer.depth]))


def _scorer_at(member: Member, depth: str | None) -> tuple[AnyScorer, list[str]]:
    """The scorer whose explanations stop where it is asked, and what is to be said of that."""
    known = _depths(member)
    depth = depth or known[0]
    if depth not in known:
        raise ValueError(f"depth must be one of {', '.join(known)}, got {depth!r}")
    own = member.scorer.depth
    if depth == PIXELS:
        assert member.in_pixels is not None
        is_finer = own != PIXELS
        told = f"pixels, finer than the explanation, which stops at {own}"
        return member.in_pixels, [told] if is_finer else []
    why = "" if PIXELS in known else ", for the model cannot be explained to pixels"
    places = f"places of {own}, which see more than they cover"
    told = "the tile as a whole" if own == TILES else places
    return member.scorer, [told + why]


def _alone(scorer: AnyScorer) -> AnyScorer:
    """The same, with every tile in a window of its own."""
    return replace(scorer, block_tiles=1) if isinstance(scorer, DenseLogits) else scorer


def _weight(weights: NDArray[np.float64], place: int) -> tuple[float, bool]:
    """What a tile's own number counts in its member's score, and whether it does."""
    own = float(weights[place])
    return (own, True) if own > 0 else (float(weights[weights > 0].mean()), False)


def _density(
    shares: NDArray[np.float64], window: Window, mpp: Mpp
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """A map in logits of the slide's score per mm2, and what it comes to."""
    rows, columns = shares.shape
    pixel_um = window.box.width * mpp.x / columns, window.box.height * mpp.y / rows
    density = (shares / (math.prod(pixel_um) * 1e-6)).astype("<f4")
    return density, {
        "unit": "logits/mm²",
        "width": columns,
        "height": rows,
        "pixel_um": list(pixel_um),
        "largest": float(np.abs(density).max()),
        "sum": float(shares.sum()),
        "positive": float(shares.clip(min=0).sum()),
        "negative": float(shares.clip(max=0).sum()),
    }


def _scale(subject: Subject, member: Member) -> float:
    """What counts as one where tiles' own numbers are held against each other.

    A tile's logits are as large as that; what a tile adds to a slide model's logit is as small as
    there are many tiles, so there it is the largest of all.
    """
    if not member.is_of_slides:
        return 1.0
    largest = float(subject.tiles["contribution"].abs().max())
    return largest if largest > 0 else 1.0


def _own(found: Explanation, scale: float) -> dict[str, Any]:
    """A tile's own number, and its parts, in logits."""
    values = found.contributions[0].double()
    number, absolute = float(found.logit[0]), float(values.abs().sum())
    return {
        "number": number,
        "contribution": float(values.sum()),
        "positive": float(values.clamp(min=0).sum()),
        "negative": float(values.clamp(max=0).sum()),
        "bias": float(found.bias[0]),
        "constants": {name: float(term[0]) for name, term in found.constants.items()},
        "gap": float(found.completeness_gap[0]),
        "tolerance": scale * float32_tolerance(number / scale, absolute / scale),
    }


def _logits(scorer: AnyScorer, member: Member, images: Tensor, window: Window) -> dict[str, float]:
    """The tile's logits by column of the table; none for a slide model."""
    if member.is_of_slides:
        return {}
    _, rows = scorer.look(member.grid, images, [window])
    return dict(zip((f"logit_{name}" for name in scorer.classes), rows[0].tolist(), strict=True))


def _check(
    subject: Subject, index: int, own: Mapping[str, Any], logits: Mapping[str, float]
) -> dict[str, Any]:
    """What is stored of a tile beside what was found now."""
    row = subject.tiles.iloc[index]
    parts = ("contribution", "positive", "negative", "bias")
    now = {**logits, **{name: own[name] for name in parts}}
    stored = {name: float(row[name]) for name in now}
    if math.isnan(stored["positive"]):
        # A tile that stayed whole: what is stored is all of its number but the bias.
        now["contribution"] += sum(own["constants"].values())
    stored = {name: value for name, value in stored.items() if math.isfinite(value)}
    differences = {name: now[name] - value for name, value in stored.items()}
    if odd := [name for name, value in now.items() if not math.isfinite(value)]:
        raise ValueError(
            f"recomputed, {odd[0]} of tile {index} is {now[odd[0]]}, which is no number"
        )
    largest = max(differences, key=lambda name: abs(differences[name]), default=None)
    tolerance, line = own["tolerance"], None
    if largest is not None and abs(differences[largest]) > tolerance:
        made = subject.explanation.provenance.get("version", "another version")
        line = (
            f"recomputed, {largest} is {now[largest]:.6g}; stored is {stored[largest]:.6g}, further"
            f" off than the {tolerance:.1e} of float32. Weights, tiles and stain profile are those"
            " of the explanation; the slide's pixels, the device or a library may not be (made by"
            f" {made})"
        )
    return {
        "stored": stored,
        "recomputed": {name: now[name] for name in stored},
        "differences": differences,
        "tolerance": tolerance,
        "differs": line is not None,
        "line": line,
    }


def _picture_of_weights(found: Explanation) -> bytes:
    """W(x) in the colours that it looks for, as PNG."""
    weights = found.weights[0].float().cpu().numpy()
    return _encoded(colour_explanation(weights, found.contributions[0].float().cpu().numpy()))


def _png(pixels: Tensor) -> bytes:
    """``(3, height, width)`` uint8 as PNG."""
    return _encoded(pixels.permute(1, 2, 0).cpu().numpy())


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
