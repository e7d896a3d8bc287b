"""FROC and the CAMELYON16 score of detected lesions.

The rules are those of the challenge's evaluation: lesions are what touches after growing by 37.5 um
(half the size of five tumour cells, so that parts 75 um apart are one) and filling holes, on a
raster of 7.776 um; a lesion whose major axis is under 275 um (isolated tumour cells, 200 um, plus
that growth) counts neither way: it is no target, and detections in it are no false positives; a
lesion's score is the highest among detections inside. Detections outside of all lesions are false
positives. The score is the mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide,
over all slides. Lesions are MONAI's (``monai.apps.pathology``).

Source: Ehteshami Bejnordi et al., JAMA 318, 2017; the challenge's Evaluation_FROC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.regions import Regions
from pathology.geometry import Box, Mpp, Size
from pathology.maps.slide_map import SlideMap
from pathology.metrics.bootstrap import Estimate, check_bootstrap, interval, sample

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Per slide, at which sensitivity is read."""
LESION_MPP = 0.243 * 2**5
"""Micrometres per pixel of the raster that lesions are looked for on."""
ITC_UM = 200.0
GROW_UM = 75.0
_BLOCK = 32  # raster pixels, looked into only where something is


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of one slide.

    Args:
        labels: ``(height, width)`` 0 outside, else a lesion's number.
        box: the level-0 rectangle that the raster covers.
        excluded: numbers of lesions that count neither way.
    """

    labels: NDArray[np.int64]
    box: Box
    excluded: frozenset[int]

    @property
    def targets(self) -> list[int]:
        """Numbers of the lesions to be found."""
        return [i for i in range(1, int(self.labels.max()) + 1) if i not in self.excluded]

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
        """The lesion at each level-0 location, 0 for none; locations off the raster are in none."""
        height, width = self.labels.shape
        column = np.floor((x - self.box.x) * width / self.box.width).astype(np.int64)
        row = np.floor((y - self.box.y) * height / self.box.height).astype(np.int64)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = np.zeros(len(x), np.int64)
        found[inside] = self.labels[row[inside], column[inside]]
        return found


def find_lesions(mask: SlideMap, *, itc_um: float = ITC_UM, grow_um: float = GROW_UM) -> Lesions:
    """The lesions of a mask, by the challenge's rules.

    Args:
        mask: over 0.5 where tumour is. Pixels of :data:`LESION_MPP` are the challenge's; others
            give other lesions where these are close to each other or to the limit.
        itc_um: largest diameter of isolated tumour cells.
        grow_um: lesions closer than that are one; the diameter's limit grows with it.

    Raises:
        ValueError: pixels that are not square.
    """
    from monai.apps.pathology.utils import compute_multi_instance_mask
    from skimage.measure import regionprops

    mpp = mask.mpp
    if abs(mpp.x / mpp.y - 1) > 0.02:
        raise ValueError(f"a mask of lesions needs square pixels, got {mpp.x} x {mpp.y} um")
    spacing = (mpp.x + mpp.y) / 2
    tumour = np.nan_to_num(mask.values) > 0.5
    if not tumour.any():
        # Distances to nothing are not defined.
        return Lesions(np.zeros(tumour.shape, np.int64), mask.box, frozenset())
    labels = compute_multi_instance_mask(tumour.astype(np.uint8), grow_um / (2 * spacing))
    labels = np.asarray(labels, dtype=np.int64)
    # MONAI's own function asks scikit-image for this length by a name that it gives up.
    limit = (itc_um + grow_um) / spacing
    small = {int(one.label) for one in regionprops(labels) if one.axis_major_length < limit}
    return Lesions(labels, mask.box, frozenset(small))


def lesion_mask(
    regions: Regions, size: Size, mpp: Mpp, names: Sequence[str], pixel_um: float = LESION_MPP
) -> SlideMap:
    """Which part of a slide is lesion, on the raster that lesions are looked for on.

    Args:
        regions: what was drawn on the slide.
        size: of the slide in level-0 pixels.
        mpp: of level 0.
        names: classes of the regions that are lesions.
        pixel_um: of the raster.

    Returns:
        1 where at least half of a pixel is covered by any of the classes.
    """
    step_x, step_y = pixel_um / mpp.x, pixel_um / mpp.y
    width, height = int(np.ceil(size.width / step_x)), int(np.ceil(size.height / step_y))
    values = np.zeros((height, width), np.float32)

    def covered(columns: NDArray[np.int64], rows: NDArray[np.int64], n: int) -> NDArray[np.float64]:
        boxes = np.empty((len(columns), 4))
        boxes[:, 0], boxes[:, 1] = columns * step_x, rows * step_y
        boxes[:, 2], boxes[:, 3] = n * step_x, n * step_y
        return regions.covered(boxes, list(names)).max(0)

    # Most of a slide is far from any lesion: blocks first, pixels of those with something in them.
    rows, columns = (
        part.ravel() for part in np.mgrid[0:height:_BLOCK, 0:width:_BLOCK].astype(np.int64)
    )
    share = covered(columns, rows, _BLOCK)
    for row, column in zip(rows[share > 0], columns[share > 0], strict=True):
        here = values[row : row + _BLOCK, column : column + _BLOCK]
        y, x = np.mgrid[row : row + here.shape[0], column : column + here.shape[1]]
        here[:] = covered(x.ravel(), y.ravel(), 1).reshape(here.shape) >= 0.5
    box = Box(0, 0, width * step_x, height * step_y)
    return SlideMap(values, box, mpp, "fraction")


@dataclass(frozen=True, eq=False)
class Hits:
    """What the detections of one slide came to.

    Args:
        false: scores of detections outside of all lesions.
        found: the score of each target, 0 for one that was not found.
        targets: how many there are.
    """

    false: NDArray[np.float64]
    found: NDArray[np.float64]
    targets: int


def count_hits(
    lesions: Lesions | None,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> Hits:
    """Compare a slide's detections with its lesions.

    Args:
        lesions: of the slide; ``None`` for one without.
        x: ``(n,)`` level-0 pixels.
        y: likewise.
        scores: ``(n,)`` positive, higher is surer.

    Raises:
        ValueError: scores that are not positive, by which a lesion that was found could not be told
            from one that was not.
    """
    if not (np.isfinite(scores) & (scores > 0)).all():
        raise ValueError("scores of detections must be positive numbers")
    if lesions is None:
        return Hits(np.asarray(scores, np.float64), np.empty(0), 0)
    at = lesions.at(np.asarray(x, np.float64), np.asarray(y, np.float64))
    found = [float(scores[at == i].max(initial=0.0)) for i in lesions.targets]
    return Hits(np.asarray(scores, np.float64)[at == 0], np.array(found), len(found))


@dataclass(frozen=True, eq=False)
class Froc:
    """The result over slides.

    Args:
        score: mean sensitivity at :data:`FALSE_POSITIVES`, with its interval over groups of slides.
        sensitivities: at each of them, likewise.
        false_per_slide: of the curve, from the highest threshold down.
        sensitivity: of the curve.
        slides: how many.
        lesions: targets on them.
    """

    score: Estimate
    sensitivities: Mapping[float, Estimate]
    false_per_slide: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    slides: int
    lesions: int


def froc(
    hits: Sequence[Hits],
    groups: Sequence[str] | None = None,
    *,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Froc:
    """The FROC curve and the CAMELYON16 score.

    The same as MONAI's ``compute_froc_curve_data`` and ``compute_froc_score`` (linear between
    points), but sorted once for all draws, and with the lowest score, which theirs leaves out where
    every lesion was found.

    Args:
        hits: of each slide, those without lesions or detections included.
        groups: what of the slides is drawn as a whole; each by itself when omitted.
        repeats: bootstrap draws.
        level: of the intervals.
        seed: of the draws.

    Raises:
        ValueError: no slide, or no target on any.
    """
    check_bootstrap(repeats, level)
    if not hits or not sum(one.targets for one in hits):
        raise ValueError("no lesion to be found on any slide: FROC is not defined")
    scores = np.concatenate([np.concatenate([one.false, one.found]) for one in hits])
    slide = np.repeat(np.arange(len(hits)), [len(one.false) + len(one.found) for one in hits])
    is_true = np.concatenate(
        [np.repeat([False, True], [len(one.false), len(one.found)]) for one in hits]
    )
    targets = np.array([one.targets for one in hits])
    # Lesions that were not found have score 0 and are at no threshold.
    order = np.argsort(-scores, kind="stable")[: np.count_nonzero(scores > 0)]
    ordered, slide, is_true = scores[order], slide[order], is_true[order]
    # Of none there is no last one.
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])

    def curve(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        times = weights[slide]
        true = np.append(0.0, np.cumsum(times * is_true)[last]) / (weights @ targets)
        false = np.append(0.0, np.cumsum(times * ~is_true)[last]) / weights.sum()
        return false, true

    def once(weights: NDArray[np.float64]) -> dict[str, float]:
        if not weights @ targets:
            return dict.fromkeys(("score", *map(str, FALSE_POSITIVES)), np.nan)
        at = np.interp(FALSE_POSITIVES, *curve(weights))
        return {"score": float(at.mean())} | {
            str(f): float(v) for f, v in zip(FALSE_POSITIVES, at, strict=True)
        }

    def statistic(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        rows = [once(row) for row in weights]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    named = None if groups is None else np.asarray(groups, dtype=object)
    values, draws = sample(statistic, len(hits), named, repeats=repeats, seed=seed)
    false, sensitivity = curve(np.ones(len(hits)))
    return Froc(
        interval(values["score"], draws["score"], level),
        {f: interval(values[str(f)], draws[str(f)], level) for f in FALSE_POSITIVES},
        false,
        sensitivity,
        len(hits),
        int(targets.sum()),
    )
