"""Which tiles of a split are explained."""

import numpy as np

from pathology.benchmark.tile_sets import Examples


def choose(examples: Examples, count: int, seed: int = 0) -> Examples:
    """So many tiles of a split, classes in turn, at random; all of them for 0.

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
        queues.append([mine[i] for i in rng.permutation(len(mine))])
    rows: list[int] = []
    for turn in range(max(map(len, queues))):
        for queue in queues:
            if turn < len(queue) and (not count or len(rows) < count):
                rows += members[queue[turn]]
    return examples.take(np.array(rows))
