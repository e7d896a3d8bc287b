"""Metrics that are in use and mislead: computed when asked for, never what a study is read by."""

from pathology.benchmark.study.measures.catalogue import per_example, undefined
from pathology.benchmark.study.measures.faithfulness import as_float, first
from pathology.benchmark.study.measures.localisation import evident_maps
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.map_quality.compared import why_undefined
from pathology.map_quality.overlap import oracle_dice
from pathology.map_quality.ranking import pointing_game
from pathology.map_quality.sensitivity import sensitivity

GROUP = "asked_for_only"
LOCATED = ("pointing_game", "oracle_dice")


def asked_for_only(
    subject: Subject, *, tolerance: float, examples: int, radius: float
) -> list[Value]:
    """The pointing game saturates; the best Dice chooses its threshold by what it is measured on.

    Args:
        subject: a method on a network.
        tolerance: pixels from the mask that still count as a hit.
        examples: the first so many of the test tiles, for max-sensitivity; 0 is all.
        radius: of its noise.
    """
    return [*_located(subject, tolerance), *_sensitivity(subject, examples, radius)]


def _located(subject: Subject, tolerance: float) -> list[Value]:
    if "evidence" not in subject.tile_set.masks:
        return undefined(GROUP, LOCATED, "the tile set has no masks of evidence")
    examples, maps, masks = evident_maps(subject, "evidence")
    if not len(examples):
        return undefined(GROUP, LOCATED, "no tile has evidence")
    reasons = why_undefined(maps, masks)
    hits = pointing_game(maps, masks, tolerance=tolerance)
    best = oracle_dice(maps, masks)
    return [
        *per_example(GROUP, "pointing_game", hits, examples, reasons),
        *per_example(GROUP, "oracle_dice", best, examples, reasons),
    ]


def _sensitivity(subject: Subject, examples: int, radius: float) -> list[Value]:
    if subject.method is None:
        return undefined(GROUP, ["max_sensitivity"], "the oracle looks at no pixel")
    some = first(subject.test, examples)
    found = [
        sensitivity(
            subject.explainer(aim), image, subject.rng(GROUP, name), radius=radius,
            batch=subject.batch,
        )
        for image, name, aim in zip(
            as_float(some.images), some.names, subject.predicted().tolist(), strict=False
        )
    ]  # fmt: skip
    numbers = [each.most for each in found]
    reasons = [each.note for each in found]
    return list(per_example(GROUP, "max_sensitivity", numbers, some, reasons))
