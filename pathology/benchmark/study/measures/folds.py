"""Whether networks that learnt from different patients give the same reasons: MeGe and ReCo."""

import numpy as np

from pathology.benchmark.study.measures.catalogue import METRICS, undefined, value
from pathology.benchmark.study.measures.subject import Subject, scores
from pathology.benchmark.study.rows import Value
from pathology.benchmark.study.variants import FOLD, fold_of
from pathology.map_quality.agreement import fold_agreement

GROUP = "folds"


def folds(subject: Subject, *, folds: int, examples: int) -> list[Value]:
    """Of each tile's own class, on training tiles that some of the networks did not see.

    Args:
        subject: a method on a network.
        folds: of patients; a training for each.
        examples: training tiles to explain, drawn at random; 0 is all.
    """
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle looks at no network")
    train = subject.tile_set.split("train")
    held_out = fold_of(train.patients, folds)
    rows = np.sort(subject.rng(GROUP).permutation(len(train))[: examples or None])
    some = train.take(rows)
    networks = [subject.variant(FOLD.format(fold=i, folds=folds)) for i in range(folds)]
    maps = np.stack([subject.explain(some.images, some.labels, each) for each in networks])
    right = np.stack(
        [
            scores(each, some.images, subject.device, subject.batch).argmax(1) == some.labels
            for each in networks
        ]
    )
    found = fold_agreement(maps, right, held_out[rows])
    left_out = f"{found.undefined} pairs with a constant map left out" if found.undefined else ""
    note = "; ".join(each for each in (found.note, left_out) if each)
    return [
        value(GROUP, "mege", found.mege, note=note),
        value(GROUP, "reco", found.reco, note=note),
    ]
