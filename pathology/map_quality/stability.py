"""Stability: does a map stay when stain, scanner or field change and the network's answer does not?

Where the answer changes, the map should change as well: such cases have no value, and are counted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.map_quality.agreement import spearman
from pathology.map_quality.changes import CHANGES, Change, Shift
from pathology.map_quality.question import Question
from pathology.map_quality.scoring import Explain
from pathology.map_quality.sensitivity import explained

TOLERANCE = 0.1
"""Change of the logit, as a share of it, up to which it counts as unchanged."""


@dataclass(frozen=True, slots=True)
class Stability:
    """One map under one change.

    Args:
        change: its name.
        similarity: rank correlation of the two maps, the second moved back; NaN with a note.
        relative_change: ``|map' - map| / |map|``, Euclidean; likewise.
        logit: of the image.
        changed_logit: of the changed image.
        note: why there is no value.
    """

    change: str
    similarity: float
    relative_change: float
    logit: float
    changed_logit: float
    note: str = ""


def stability(
    question: Question,
    explain: Explain,
    *,
    changes: Sequence[Change] = CHANGES,
    tolerance: float = TOLERANCE,
) -> list[Stability]:
    """How one image's map stands changes.

    Args:
        question: the image, the class explained and the network.
        explain: maps of images for the same class.
        changes: of the image; a map of a :class:`~pathology.map_quality.changes.Shift` is compared
            with the map shifted likewise, where both are in view.
        tolerance: see :func:`is_held`.

    Returns:
        One for each change.

    Raises:
        ValueError: a shift beyond the image, maps or logits of the wrong shape.
    """
    image, target, batch = question.image, question.target, question.batch
    images = [image, *(change(image) for change in changes)]
    logits = question.logits(images)
    held = is_held(logits[0], logits[1:], target, tolerance)
    first = explained(explain, image[None])[0]
    asked = [images[1 + k] for k in np.flatnonzero(held)]
    starts = range(0, len(asked), batch)
    maps = iter([m for s in starts for m in explained(explain, np.stack(asked[s : s + batch]))])
    found = []
    for k, change in enumerate(changes):
        before, after = float(logits[0, target]), float(logits[1 + k, target])
        if not held[k]:
            note = f"the answer changes: logit {before:.3g} to {after:.3g}"
            found.append(Stability(change.name, math.nan, math.nan, before, after, note))
            continue
        old, new = first, next(maps)
        if isinstance(change, Shift):
            was, now = change.windows(first.shape)
            old, new = first[was], new[now]
        note = "a map is constant" if np.ptp(old) == 0 or np.ptp(new) == 0 else ""
        rho = math.nan if note else spearman(old, new)
        moved = math.nan if note else float(np.linalg.norm(new - old) / np.linalg.norm(old))
        found.append(Stability(change.name, rho, moved, before, after, note))
    return found


def is_held(
    logits: NDArray[np.float64], changed: NDArray[np.float64], target: int, tolerance: float
) -> NDArray[np.bool_]:
    """Whether the answer is still the same: the highest class, and the target's logit about.

    Args:
        logits: ``(classes,)`` of the image.
        changed: ``(k, classes)`` of changed ones.
        target: class whose logit may change.
        tolerance: by this share of itself.

    Returns:
        ``(k,)``.
    """
    moved = np.abs(changed[:, target] - logits[target])
    same = changed.argmax(1) == logits.argmax()
    found: NDArray[np.bool_] = same & (moved <= tolerance * abs(logits[target]))
    return found
