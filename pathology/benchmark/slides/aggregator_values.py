"""What an aggregator makes of slides, whatever explains it: calls, few tiles, small lesions."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.slides.interventions import lesion_curve
from pathology.benchmark.slides.measures import TARGET, AskedSlide, value_of
from pathology.benchmark.slides.minimal import minimal_necessary_set, minimal_sufficient_set
from pathology.benchmark.study.rows import Value
from pathology.metrics.bootstrap import Weights, interval, sample
from pathology.metrics.ranking import Ranking

FEW = (0, 1, 2, 4, 8, 16, 32)
"""Lesion tiles that a lesion is cut down to."""

SEARCHES = {
    "minimal sufficient set": minimal_sufficient_set,
    "minimal necessary set": minimal_necessary_set,
}


def calls(slides: Sequence[AskedSlide]) -> Iterator[Value]:
    """How well slides are called: a logit of at least 0 is positive.

    What explains an aggregator that knows nothing explains nothing: the note says so where chance
    is within the interval.
    """
    logits = np.array([each.whole for each in slides])
    labels = np.array([bool(each.bag.label) for each in slides])
    right = (logits >= 0) == labels
    ranking = Ranking(logits, labels)

    def areas(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {"auroc": np.array([ranking(row).auroc for row in weights])}

    values, draws = sample(areas, len(slides))
    area = interval(values["auroc"], draws["auroc"], 0.95)
    note = "" if area.low > 0.5 else "no better than chance: explanations of it say nothing"
    yield value_of("AUROC of slides", area.value, low=area.low, high=area.high, note=note)
    balanced = (right[labels].mean() + right[~labels].mean()) / 2
    yield value_of("balanced accuracy of slides", balanced, note=note)
    for each, is_right in zip(slides, right, strict=True):
        yield value_of("slide is called rightly", float(is_right), example=each.bag.name)


def decisive_tiles(slide: AskedSlide) -> Iterator[Value]:
    """How few tiles decide a slide's call, and what finding them by closed form saves."""
    for name, search in SEARCHES.items():
        why, found = "", None
        if slide.whole <= 0:
            why = "the slide is not called positive"
        elif not slide.logits.closed_form:
            why = "no closed form of subsets: every round would be a forward pass per tile"
        else:
            found = search(slide.logits, TARGET)
            why = "" if found else "no set that the search came by decides the call"
        size = inside = passes = np.nan
        if found:
            size, passes = len(found.tiles), found.forward_passes
            inside = slide.bag.lesion[found.tiles.cpu().numpy()].mean()
        example = slide.bag.name
        yield value_of(name, size, example=example, note=why)
        yield value_of(f"{name}, in lesion", inside, example=example, note=why)
        yield value_of(f"{name}, forward passes saved", passes, example=example, note=why)


def small_lesions(slide: AskedSlide, rng: np.random.Generator) -> Iterator[Value]:
    """What is made of a slide when its lesion is cut down to :data:`FEW` tiles."""
    curve = lesion_curve(slide.logits, slide.bag.lesion, FEW, TARGET, rng)
    tile_mm2 = (slide.bag.tile_px * slide.bag.mpp / 1000) ** 2
    columns = {
        "probability of a small lesion": curve.probability,
        "logit of a small lesion": curve.logit,
        "small lesion is found": curve.found,
    }
    for name, column in columns.items():
        for tiles, value in zip(curve.tiles, column, strict=True):
            yield value_of(
                name, value, example=slide.bag.name, stratum=f"{tiles} lesion tiles",
                note=f"{tiles * tile_mm2:.3f} mm2",
            )  # fmt: skip
