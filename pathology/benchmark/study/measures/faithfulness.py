"""Whether a map's order is the network's own: what it says as pixels are taken away."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.study.measures.catalogue import per_example
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.benchmark.study.variants import deleted_glass
from pathology.benchmark.tile_sets import Examples
from pathology.map_quality.deletion import deletion
from pathology.map_quality.infidelity import infidelity
from pathology.map_quality.question import Question
from pathology.map_quality.replacement import make_fill
from pathology.map_quality.road import road
from pathology.map_quality.saco import saco
from pathology.map_quality.single_deletion import cells_of, single_deletion

GROUP = "faithfulness"


def faithfulness(
    subject: Subject,
    *,
    examples: int,
    steps: int,
    fill: str,
    parts: int,
    cells: int,
    groups: int,
    squares: int,
    levels: list[float],
) -> list[Value]:
    """Of the predicted class: insertion and deletion, ROAD, single deletion, infidelity.

    Args:
        subject: a method on a network.
        examples: the first so many of the test tiles; 0 is all.
        steps: of insertion and deletion.
        fill: what pixels that they remove become.
        parts: along each side, that they remove as a whole; 0 for single pixels.
        cells: along each side, of the single deletion; they become the set's glass, as of IDSDS.
        groups: of pixels, of SaCo.
        squares: of infidelity; they become glass.
        levels: shares that ROAD removes.
    """
    some = first(subject.test, examples)
    target = subject.predicted()[: len(some)]
    maps = subject.maps(target)
    images = as_float(some.images)
    glass = deleted_glass(subject.tile_set)
    filling = glass if fill == "glass" else make_fill(fill)
    regions = cells_of(images.shape[1:3], parts) if parts else None
    found: dict[str, list[float]] = defaultdict(list)
    notes: dict[str, list[str]] = defaultdict(list)

    def note(metric: str, number: float, why: str = "") -> None:
        found[metric].append(number)
        notes[metric].append(why)

    for image, one, aim, name in zip(images, maps, target.tolist(), some.names, strict=True):
        constant = "the map is constant" if np.ptp(one) == 0 else ""
        question = Question(subject.score, image, aim, batch=subject.batch)
        # The same draws for every method and network.
        curves = deletion(
            question, one, subject.rng(GROUP, "ties", name), fill=filling, steps=steps,
            parts=regions,
        )  # fmt: skip
        note("deletion", curves.deletion())
        note("insertion", curves.insertion())
        note("abpc", curves.abpc())
        note("logit_abpc", curves.abpc("logit"))
        removed = road(question, one, subject.rng(GROUP, "road", name), levels=levels)
        note("road", removed.mean_difference())
        alone = single_deletion(question, one, cells=cells, fill=glass)
        note("sds", alone.correlation, alone.note)
        grouped = saco(question, one, subject.rng(GROUP, "ties", name), groups=groups, fill=filling)
        note("saco", grouped.value, grouped.note)
        squared = infidelity(
            question, one, subject.rng(GROUP, "squares", name), samples=squares, fill=glass
        )
        note("infidelity", squared.normalised, squared.note or constant)
        gain = squared.normalised / squared.uniform if squared.uniform else np.nan
        note("infidelity_gain", gain, squared.note or "a uniform map has no error")
    return [
        each
        for metric in found
        for each in per_example(GROUP, metric, found[metric], some, notes[metric])
    ]


def first(examples: Examples, count: int) -> Examples:
    """The first ``count`` tiles, all of them for 0."""
    return examples if not count else examples.take(np.arange(min(count, len(examples))))


def as_float(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """In [0, 1]."""
    return np.divide(images, 255, dtype=np.float32)
