"""Whether maps stay when stain, scanner or field change and the network's answer does not."""

import numpy as np

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.faithfulness import as_float, first
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.map_quality.changes import CHANGES, ScannerChange, Shift, StainChange
from pathology.map_quality.question import Question
from pathology.map_quality.stability import stability as stability_of

GROUP = "stability"
KINDS = {"stain": StainChange, "scanner": ScannerChange, "shift": Shift}


def stability(subject: Subject, *, examples: int) -> list[Value]:
    """Of the predicted class: rank correlation, mean over changes of a kind.

    Args:
        subject: a method on a network.
        examples: the first so many of the test tiles; 0 is all.
    """
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle looks at no pixel")
    some = first(subject.test, examples)
    side = subject.tile_set.size_px
    changes = [c for c in CHANGES if not (isinstance(c, Shift) and abs(c.down) >= side // 2)]
    owners = [next(k for k, kind in KINDS.items() if isinstance(c, kind)) for c in changes]
    found: dict[str, list[float]] = {name: [] for name in METRICS[GROUP]}
    notes: dict[str, list[str]] = {name: [] for name in METRICS[GROUP]}
    for image, aim in zip(as_float(some.images), subject.predicted().tolist(), strict=False):
        question = Question(subject.score, image, aim, batch=subject.batch)
        under = stability_of(question, subject.explainer(aim), changes=changes)
        for kind in KINDS:
            mine = [each for each, owner in zip(under, owners, strict=True) if owner == kind]
            same = [each.similarity for each in mine if not each.note]
            found[f"{kind}_stability"].append(float(np.mean(same)) if same else np.nan)
            notes[f"{kind}_stability"].append(mine[0].note)
        found["answers_held"].append(
            float(np.mean([not each.note.startswith("the answer changes") for each in under]))
        )
        notes["answers_held"].append("")
    return [
        each
        for metric, numbers in found.items()
        for each in per_example(GROUP, metric, numbers, some, notes[metric])
    ]
