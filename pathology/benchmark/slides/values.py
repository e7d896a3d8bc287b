"""What an aggregator's explanations of slides are worth: values of a study."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from bcos_vit.errors import UnsupportedMethodError
from pathology.aggregators.aggregator import Aggregator
from pathology.benchmark.slides.aggregator_values import calls, decisive_tiles, small_lesions
from pathology.benchmark.slides.bags import Progress, SlideBag
from pathology.benchmark.slides.detections import lesions_of
from pathology.benchmark.slides.measures import REFUSED, TARGET, AskedSlide, ask, value_of
from pathology.benchmark.slides.method_values import on_all, on_slide
from pathology.benchmark.slides.tile_methods import (
    NAMES,
    ORACLE,
    TILE_METHODS,
    TileScores,
    score_tiles,
)
from pathology.benchmark.study.rows import Value


def slide_values(
    aggregator: Aggregator,
    bags: Sequence[SlideBag],
    *,
    name: str,
    scale: float = 1.0,
    methods: Sequence[str] = NAMES,
    seed: int = 0,
    progress: Progress = lambda steps, total, what: steps,
) -> list[Value]:
    """Values of one aggregator and of each way to explain it, on slides of a test set.

    Explained is the logit of a lesion, on all slides that have one; notes say which of these are
    not called positive.

    Args:
        aggregator: with one output, in eval mode.
        bags: with lesions and without.
        name: of the aggregator, the ``backbone`` of all values.
        scale: that features are divided by.
        methods: of :data:`pathology.benchmark.slides.tile_methods.NAMES`.
        seed: of ties and choices at random.
        progress: wraps slides.

    Returns:
        Values, by the names of :data:`pathology.benchmark.slides.measures.MEASURES`. Of a method
        that is undefined on this aggregator one, which says why.

    Raises:
        ValueError: no such method, several outputs, or slides all with a lesion or all without.
    """
    check_methods(methods)
    if aggregator.outputs != 1:
        raise ValueError(f"an aggregator with one output is needed, got {aggregator.outputs}")
    slides = [ask(aggregator, bag, scale) for bag in bags]
    negatives = [each.features for each in slides if not each.bag.label]
    if not negatives or len(negatives) == len(slides):
        raise ValueError("slides with a lesion and slides without are needed")
    rng = np.random.default_rng(seed)
    values = list(calls(slides))
    scores: dict[str, list[TileScores]] = {}
    for method in dict.fromkeys(methods):
        try:
            scores[method] = _scores(method, aggregator, slides)
        except UnsupportedMethodError as error:
            values.append(value_of(REFUSED, np.nan, method=method, note=str(error)))
    for i in progress(range(len(slides)), len(slides), name):
        if slides[i].bag.label:
            values += decisive_tiles(slides[i])
            values += small_lesions(slides[i], rng)
            mine = {method: found[i].scores for method, found in scores.items()}
            values += on_slide(aggregator, slides[i], mine, negatives, rng)
    lesions = [lesions_of(each.bag) for each in slides]
    for method, found in scores.items():
        values += on_all(method, slides, lesions, found, rng)
    return [replace(value, backbone=name) for value in values]


def check_methods(methods: Sequence[str]) -> None:
    """Refuse methods that there are not.

    Raises:
        ValueError: naming those that there are.
    """
    for method in methods:
        if method not in NAMES:
            raise ValueError(f"methods must be of {', '.join(NAMES)}; got {method!r}")
    if not methods:
        raise ValueError("there must be methods, got none")


def _scores(name: str, aggregator: Aggregator, slides: Sequence[AskedSlide]) -> list[TileScores]:
    """Of each slide's tiles.

    Raises:
        UnsupportedMethodError: the method is undefined on the aggregator; before it is run.
    """
    if name == ORACLE:
        return [TileScores(torch.from_numpy(each.bag.tumour.astype(float)), 0) for each in slides]
    TILE_METHODS[name].check(aggregator)
    return [score_tiles(name, aggregator, each.features, TARGET) for each in slides]
