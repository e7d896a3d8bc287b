"""IDSDS: single deletion on networks for which a deleted cell is nothing strange."""

import numpy as np

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.faithfulness import as_float, first
from pathology.benchmark.study.measures.subject import Subject, scores
from pathology.benchmark.study.rows import Value
from pathology.benchmark.study.variants import DELETED, deleted_glass
from pathology.map_quality.question import Question
from pathology.map_quality.single_deletion import single_deletion

GROUP = "idsds"


def idsds(subject: Subject, *, examples: int, cells: int) -> list[Value]:
    """Of the class that the network predicts after it learnt from tiles with deleted cells.

    It compares networks of different kinds, and explains the one that went on learning, not the one
    that is used.

    Args:
        subject: a method on a network.
        examples: the first so many of the test tiles; 0 is all.
        cells: along each side.
    """
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle explains no network")
    network = subject.variant(DELETED.format(cells=cells))
    some = first(subject.test, examples)
    glass = deleted_glass(subject.tile_set)

    def score(images: np.ndarray) -> np.ndarray:
        return scores(network, images, subject.device, subject.batch)

    target = score(some.images).argmax(1).astype(np.int64)
    maps = subject.explain(some.images, target, network)
    found = [
        single_deletion(
            Question(score, image, aim, batch=subject.batch), one, cells=cells, fill=glass
        )
        for image, one, aim in zip(as_float(some.images), maps, target.tolist(), strict=True)
    ]
    numbers = [each.correlation for each in found]
    return list(per_example(GROUP, "idsds", numbers, some, [each.note for each in found]))
