"""Maps against a planted mark that went with the class in training: it must be pointed at."""

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined, value
from pathology.benchmark.study.measures.subject import Maps, Subject
from pathology.benchmark.study.rows import Value
from pathology.benchmark.tile_sets import Examples
from pathology.map_quality.agreement import spearman
from pathology.map_quality.compared import why_undefined
from pathology.map_quality.energy import concentration, energy_pointing

GROUP = "confounder"
STRATA = ("", "aligned", "swapped")


def confounder(subject: Subject) -> list[Value]:
    """Marked test tiles, for the class that marks went with in training.

    Each is there twice, with the mark and without; the difference of the two logits is what the
    network owes to the mark, and says whether pointing at it is right. All together and by stratum:
    ``aligned``, tiles of the class; ``swapped``, tiles of another. A mark that is a whole tile, as
    another scanner's tint, cannot be pointed at: there only the evidence can, and must not.
    """
    if "confounder" not in subject.tile_set.masks or subject.positive is None:
        return undefined(GROUP, METRICS[GROUP], "nothing is planted in this tile set")
    test = subject.test
    marked = test.columns["confounder"].to_numpy() != ""
    marked &= test.masks["confounder"].any((1, 2))
    if not marked.any():
        return undefined(GROUP, METRICS[GROUP], "no example has the mark")
    rows = np.flatnonzero(marked)
    maps = subject.maps(np.full(len(rows), subject.positive, np.int64), rows=rows)
    examples = test.take(rows)
    relied, flips = _without(subject, rows)
    values: list[Value] = []
    for stratum in STRATA:
        part = np.asarray(examples.columns["stratum"] == stratum) | (stratum == "")
        if part.any():
            some = examples.take(part)
            values += _pointing(maps[part], some, stratum)
            values += per_example(GROUP, "mark_reliance", relied[part], some, UNPAIRED, stratum)
            values += per_example(GROUP, "mark_flip", flips[part], some, UNPAIRED, stratum)
    known = np.isfinite(relied)
    sums = (maps * examples.masks["confounder"]).sum((1, 2))
    rho = spearman(sums[known], relied[known]) if known.sum() > 2 else np.nan
    why = "" if np.isfinite(rho) else "too few pairs, or nothing varies"
    return [*values, value(GROUP, "mark_agreement", rho, note=why)]


UNPAIRED = "the same tile without the mark is not among the examples"


def _pointing(maps: Maps, examples: Examples, stratum: str) -> list[Value]:
    marks = examples.masks["confounder"]
    reasons = why_undefined(maps, marks)
    values: list[Value] = []
    for name, measure in (("mark_epg", energy_pointing), ("mark_concentration", concentration)):
        found = np.where(marks.all((1, 2)), np.nan, measure(maps, marks))
        values += per_example(GROUP, name, found, examples, reasons, stratum)
    evidence = examples.masks["evidence"]
    found = energy_pointing(maps, evidence)
    reasons = why_undefined(maps, evidence)
    values += per_example(GROUP, "mark_evidence_epg", found, examples, reasons, stratum)
    return values


def _without(
    subject: Subject, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each marked tile's logit loses without its mark, and whether the class changes."""
    test, logits, predicted = subject.test, subject.logits(), subject.predicted()
    bases = test.columns["base"].to_numpy()
    marks = test.columns["confounder"].to_numpy()
    plain = {bases[i]: i for i in np.flatnonzero(marks == "")}
    relied, flips = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        other = plain.get(bases[row])
        if other is not None:
            relied[place] = logits[row, subject.positive] - logits[other, subject.positive]
            flips[place] = predicted[row] != predicted[other]
    return relied, flips
