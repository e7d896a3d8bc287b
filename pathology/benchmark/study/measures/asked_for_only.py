"""Metrics that are in use and mislead: computed when asked for, never what a study is read by."""

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.localisation import evident_maps
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.map_quality.compared import why_undefined
from pathology.map_quality.overlap import oracle_dice
from pathology.map_quality.ranking import pointing_game

GROUP = "asked_for_only"


def asked_for_only(subject: Subject, *, tolerance: float) -> list[Value]:
    """The pointing game saturates; the best Dice chooses its threshold by what it is measured on.

    Args:
        subject: a method on a network.
        tolerance: pixels from the mask that still count as a hit.
    """
    if "evidence" not in subject.tile_set.masks:
        return undefined(GROUP, METRICS[GROUP], "the tile set has no masks of evidence")
    examples, maps, masks = evident_maps(subject, "evidence")
    reasons = why_undefined(maps, masks)
    hits = pointing_game(maps, masks, tolerance=tolerance)
    best = oracle_dice(maps, masks)
    return [
        *per_example(GROUP, "pointing_game", hits, examples, reasons),
        *per_example(GROUP, "oracle_dice", best, examples, reasons),
    ]
