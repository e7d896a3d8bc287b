"""Which tiles of a split are explained."""

from collections import Counter

import numpy as np

from pathology.benchmark.tile_sets import Examples

VERSION = 2
"""Of the choice, which decides what is measured."""


def choose(examples: Examples, count: int, seed: int = 0) -> Examples:
    """So many tiles of a split, classes in turn, at random; all of them for 0.

    Of every patient one tile comes before any has a second one: tests ask whether patients differ.
    Tiles that belong together, as one with a planted mark and the same without, are taken together,
    one after the other, so that the first few of what is chosen are of all classes, too.

    Args:
        examples: of a split.
        count: wanted; where tiles belong together, one more may come along.
        seed: of the choice.
    """
    belong = examples.columns.get("base")
    bases = list(belong) if belong is not None else list(examples.names)
    members: dict[str, list[int]] = {}
    for row, base in enumerate(bases):
        members.setdefault(str(base), []).append(row)
    rng = np.random.default_rng(seed)
    queues = []
    for label in np.unique(examples.labels):
        mine = [base for base, rows in members.items() if examples.labels[rows[0]] == label]
        shuffled = [mine[i] for i in rng.permutation(len(mine))]
        before: Counter[str] = Counter()
        turns = []
        for base in shuffled:
            patient = examples.patients[members[base][0]]
            turns.append(before[patient])
            before[patient] += 1
        queues.append([shuffled[i] for i in np.argsort(turns, kind="stable")])
    rows: list[int] = []
    for turn in range(max(map(len, queues))):
        for queue in queues:
            if turn < len(queue) and (not count or len(rows) < count):
                rows += members[queue[turn]]
    return examples.take(np.array(rows))
