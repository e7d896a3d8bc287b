"""What scores of tiles by a method are worth, on one slide and on all."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathology.aggregators.aggregator import Aggregator
from pathology.benchmark.slides.detections import hits_of
from pathology.benchmark.slides.flipping import flip_tiles, random_ranks
from pathology.benchmark.slides.interventions import Sets, necessity, sufficiency, top_sets
from pathology.benchmark.slides.measures import TARGET, TOP, AskedSlide, value_of
from pathology.benchmark.slides.tile_methods import ORACLE, TILE_METHODS, TileScores
from pathology.benchmark.study.rows import Value
from pathology.map_quality.ranking import auroc, average_precision, relevance_rank_accuracy
from pathology.metrics.froc import Lesions, froc

ENOUGH_NEGATIVES = 20
"""Slides without lesion that sufficiency should be averaged over."""


def on_slide(
    aggregator: Aggregator,
    slide: AskedSlide,
    scores: Mapping[str, Tensor],
    negatives: Sequence[Tensor],
    rng: np.random.Generator,
) -> Iterator[Value]:
    """Values of every method on a slide with a lesion.

    Args:
        aggregator: in eval mode.
        slide: with a lesion.
        scores: ``(N,)`` of its tiles, by method.
        negatives: features of slides without a lesion.
        rng: of the order of tiles that tie.
    """
    lesion = slide.bag.lesion
    sets = {name: top_sets(each, int(lesion.sum()), rng) for name, each in scores.items()}
    needed, enough = _interventions(aggregator, slide, sets, negatives)
    few = "" if len(negatives) >= ENOUGH_NEGATIVES else f"added to {len(negatives)} slides only"
    missed = "the slide is not called positive" if slide.is_missed else ""
    all_lesion = "every tile is lesion" if lesion.all() else ""
    for name, each in scores.items():
        flipping = flip_tiles(slide.logits, each, TARGET, rng)
        maps, masks = each.numpy()[None, None], lesion[None, None]
        top = top_sets(each, TOP, rng)
        rows: dict[str, tuple[float, str]] = {
            "ABPC of tile flipping, probability": (flipping.abpc[0], missed),
            "ABPC of tile flipping, logit": (flipping.abpc[1], missed),
            "AUPC of tile flipping, probability": (flipping.aupc[0], missed),
            "AUPC of tile flipping, logit": (flipping.aupc[1], missed),
            "necessity of top tiles": (needed[name][0], missed),
            "necessity of top tiles, logit": (needed[name][1], missed),
            "sufficiency of top tiles": (enough[name][0], few),
            "sufficiency of top tiles, logit": (enough[name][1], few),
            "AP of lesion tiles": (average_precision(maps, masks)[0], all_lesion),
            "AUROC of lesion tiles": (auroc(maps, masks)[0], all_lesion),
            "rank accuracy of lesion tiles": (relevance_rank_accuracy(maps, masks)[0], all_lesion),
            f"top {TOP} tiles in lesion": ((top & lesion).sum(1).mean() / top[0].sum(), ""),
        }
        for metric, (value, note) in rows.items():
            yield value_of(metric, value, method=name, example=slide.bag.name, note=note)


def on_all(
    name: str,
    slides: Sequence[AskedSlide],
    lesions: Sequence[Lesions | None],
    found: Sequence[TileScores],
    rng: np.random.Generator,
) -> Iterator[Value]:
    """A method's FROC over all slides, and what its scores cost.

    Args:
        name: of the method.
        slides: with lesions and without.
        lesions: of each slide.
        found: scores of each slide.
        rng: of the order of tiles that tie.
    """
    yield _froc(name, slides, lesions, found, rng)
    if name != ORACLE:
        note = "of a bag; a bag of one tile is a part of one" if name == "single" else "of a bag"
        forward = float(np.mean([each.forward_passes for each in found]))
        yield value_of("forward passes", forward, method=name, note=note)
        backward = float(np.mean([each.backward_passes for each in found]))
        yield value_of("backward passes", backward, method=name, note=note)


def _interventions(
    aggregator: Aggregator,
    slide: AskedSlide,
    sets: Mapping[str, Sets],
    negatives: Sequence[Tensor],
) -> list[dict[str, NDArray[np.float64]]]:
    """Necessity and sufficiency of each method's sets, mean over its orders of ties."""
    stacked = np.concatenate(list(sets.values()))
    cuts = np.cumsum([len(each) for each in sets.values()])[:-1]
    lost = necessity(slide.logits, stacked, TARGET)
    gained = sufficiency(aggregator, slide.features, stacked, negatives, TARGET)
    return [
        {n: part.mean(1) for n, part in zip(sets, np.split(both, cuts, axis=1), strict=True)}
        for both in (lost, gained)
    ]


def _froc(
    name: str,
    slides: Sequence[AskedSlide],
    lesions: Sequence[Lesions | None],
    found: Sequence[TileScores],
    rng: np.random.Generator,
) -> Value:
    """The CAMELYON16 score of a method's detections, mean over orders of tiles that tie.

    It goes by the order of all slides' tiles alone, so ranks stand for scores.
    """
    cuts = np.cumsum([len(each.scores) for each in found])[:-1]
    results = []
    for ranks in random_ranks(torch.cat([each.scores for each in found]), rng):
        parts = np.split((len(ranks) - ranks).astype(np.float64), cuts)
        hits = [
            hits_of(*each) for each in zip((s.bag for s in slides), lesions, parts, strict=True)
        ]
        if not sum(each.targets for each in hits):
            why = "no lesion is longer than isolated tumour cells are"
            return value_of("FROC of lesions", np.nan, method=name, note=why)
        results.append(froc(hits, [each.bag.name for each in slides], repeats=500).score)
    note = f"{sum(each.targets for each in hits)} lesions on {len(hits)} slides"
    if name != ORACLE and not TILE_METHODS[name].in_logits:
        note += "; its scores are not on one scale"
    value, low, high = np.mean([(each.value, each.low, each.high) for each in results], axis=0)
    return value_of("FROC of lesions", value, method=name, low=low, high=high, note=note)
