"""Maps against masks of what speaks for a class, and of the region of it."""

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.study.measures.catalogue import (
    LOCALISATION,
    per_example,
    pooled,
    undefined,
)
from pathology.benchmark.study.measures.subject import Maps, Subject
from pathology.benchmark.study.rows import Value
from pathology.benchmark.tile_sets import Examples
from pathology.map_quality.compared import why_undefined
from pathology.map_quality.energy import concentration, energy_pointing
from pathology.map_quality.overlap import choose_threshold, dice, iou, threshold_robustness
from pathology.map_quality.pooled import PooledPrecision, pixel_average_precision
from pathology.map_quality.ranking import auroc, average_precision, relevance_rank_accuracy
from pathology.metrics.bootstrap import Estimate, interval, sample

GROUP = "localisation"
PLANTED = "a mark is planted: where a map ought to point is not known; see the group confounder"
MASKS = {"evidence": "", "region": "region_"}


def localisation(subject: Subject, *, repeats: int) -> list[Value]:
    """Each tile with evidence, for its own class; pooled metrics over all tiles.

    Args:
        subject: a method on a network.
        repeats: bootstrap draws of pooled metrics.
    """
    values: list[Value] = []
    if "confounder" in subject.tile_set.masks:
        return undefined(GROUP, LOCALISATION, PLANTED)
    for mask, prefix in MASKS.items():
        if mask in subject.tile_set.masks:
            values += _against(subject, mask, prefix, repeats)
    return values or undefined(GROUP, LOCALISATION, "the tile set has no masks of evidence")


def evident(subject: Subject, examples: Examples) -> NDArray[np.bool_]:
    """Tiles ``(n,)`` of a class whose evidence masks show."""
    if subject.positive is None:
        return np.ones(len(examples), bool)
    return examples.labels == subject.positive


def evident_maps(subject: Subject, mask: str) -> tuple[Examples, Maps, NDArray[np.bool_]]:
    """Test tiles with evidence, their maps for their own class, their masks."""
    rows = np.flatnonzero(evident(subject, subject.test))
    examples = subject.test.take(rows)
    if not len(rows):
        return examples, np.zeros_like(examples.masks[mask], np.float32), examples.masks[mask]
    return examples, subject.maps(examples.labels, rows=rows), examples.masks[mask]


def threshold(subject: Subject, mask: str) -> float:
    """The best on validation; NaN where no tile there has evidence."""
    validation = subject.validation
    has_mask = validation.masks[mask].any((1, 2))
    rows = np.flatnonzero(evident(subject, validation) & has_mask)
    if not len(rows):
        return np.nan
    maps = subject.maps(validation.labels[rows], "validation", rows)
    return choose_threshold(maps, validation.masks[mask][rows])


def _against(subject: Subject, mask: str, prefix: str, repeats: int) -> list[Value]:
    examples, maps, masks = evident_maps(subject, mask)
    if not len(examples):
        return undefined(GROUP, (prefix + name for name in LOCALISATION), "no tile has evidence")
    at = threshold(subject, mask)
    numbers = {
        "epg": energy_pointing(maps, masks),
        "concentration": concentration(maps, masks),
        "ap": average_precision(maps, masks),
        "auroc": auroc(maps, masks),
        "rra": relevance_rank_accuracy(maps, masks),
        "threshold_robustness": threshold_robustness(maps, masks),
    }
    reasons = why_undefined(maps, masks)
    values: list[Value] = []
    for name, found in numbers.items():
        values += per_example(GROUP, prefix + name, found, examples, reasons)
    for name, overlap in (("dice", dice), ("iou", iou)):
        if np.isnan(at):
            why = "no validation tile has evidence to choose a threshold by"
            values += undefined(GROUP, [prefix + name], why)
        else:
            found = overlap(maps, masks, at)
            values += per_example(GROUP, prefix + name, found, examples, reasons)
    return values + _pooled(subject, mask, prefix, repeats)


def _pooled(subject: Subject, mask: str, prefix: str, repeats: int) -> list[Value]:
    """Over the pixels of all tiles, for the class with evidence: elsewhere every pixel is wrong.

    A tile of another class may hold a little of it, as a sliver of a nucleus: that is no error. The
    protocol has only tiles with a mask: scaled by itself, a map of any other has a highest pixel.
    """
    test, positive = subject.test, subject.positive
    target = test.labels if positive is None else np.full(len(test), positive, np.int64)
    maps = subject.maps(target)
    masks = test.masks[mask]
    has_unit = subject.method is not None and subject.method.unit == "logits"
    note = "" if has_unit else "values are in no unit that tiles share"
    plain = _estimate(PooledPrecision(maps, masks), test, repeats)
    rows = np.flatnonzero(evident(subject, test) & masks.any((1, 2)))
    protocol = _estimate(pixel_average_precision(maps[rows], masks[rows]), test.take(rows), repeats)
    return [
        pooled(GROUP, prefix + "pooled_ap", plain, note),
        pooled(GROUP, prefix + "pxap", protocol),
    ]


def _estimate(precision: PooledPrecision, examples: Examples, repeats: int) -> Estimate:
    """With the percentile interval of a bootstrap by patient."""
    values, draws = sample(
        lambda weights: {"": precision(weights)},
        len(examples),
        np.array(examples.patients),
        repeats=repeats,
    )
    return interval(values[""], draws[""], 0.95)
