"""FROC by hand on toys, and as MONAI counts."""

import numpy as np
import pytest
from monai.metrics import compute_fp_tp_probs, compute_froc_curve_data, compute_froc_score

from pathology.geometry import Box, Mpp, Size
from pathology.maps.slide_map import SlideMap
from pathology.metrics.froc import (
    FALSE_POSITIVES,
    LESION_MPP,
    Hits,
    Lesions,
    count_hits,
    find_lesions,
    froc,
    lesion_mask,
)

SIDE = 400


def mask(*discs, mpp=LESION_MPP):
    """Discs ``(x, y, diameter)`` in micrometres on a raster of the challenge's pixels."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) * mpp
    values = np.zeros((SIDE, SIDE), np.float32)
    for cx, cy, diameter in discs:
        values[(x - cx) ** 2 + (y - cy) ** 2 <= (diameter / 2) ** 2] = 1
    level0 = Mpp(0.25, 0.25)
    side = SIDE * mpp / 0.25
    return SlideMap(values, Box(0, 0, side, side), level0)


def px(um):
    """Level-0 pixels."""
    return np.asarray(um, float) / 0.25


def test_parts_under_75_um_apart_are_one_lesion_and_others_two():
    near = find_lesions(mask((1000, 1000, 300), (1360, 1000, 300)))  # a gap of 60 um
    far = find_lesions(mask((1000, 1000, 300), (1400, 1000, 300)))  # of 100 um
    assert near.labels.max() == 1
    assert far.labels.max() == 2


def test_isolated_tumour_cells_count_neither_way():
    # Growing adds 75 um to a diameter, and to the limit of 200 um.
    lesions = find_lesions(mask((600, 600, 170), (1800, 600, 230), (600, 1800, 600)))
    assert len(lesions.excluded) == 1
    assert len(lesions.targets) == 2
    x, y = px([600, 1800, 600, 2500]), px([600, 600, 1800, 2500])
    hits = count_hits(lesions, x, y, np.array([0.9, 0.8, 0.7, 0.6]))
    assert hits.targets == 2
    assert sorted(hits.found) == [0.7, 0.8]
    assert hits.false.tolist() == [0.6]  # the one at the cells is no false positive


def test_holes_belong_to_the_lesion_and_its_rim_of_growth_too():
    ring = mask((1500, 1500, 900))
    ring.values[mask((1500, 1500, 500)).values > 0] = 0
    lesions = find_lesions(ring)
    hits = count_hits(lesions, px([1500, 1975]), px([1500, 1500]), np.array([0.5, 0.6]))
    assert (hits.found.tolist(), len(hits.false)) == ([0.6], 0)


def test_the_score_by_hand():
    # Two slides, two lesions. Falling thresholds: hit .9, miss .8, hit .7, misses .6 and .5.
    hits = [
        Hits(np.array([0.8, 0.5]), np.array([0.9, 0.7]), 2),
        Hits(np.array([0.6]), np.array([]), 0),
    ]
    result = froc(hits, repeats=0)
    assert result.false_per_slide.tolist() == [0, 0, 0.5, 0.5, 1, 1.5]
    assert result.sensitivity.tolist() == [0, 0.5, 0.5, 1, 1, 1]
    assert (result.slides, result.lesions) == (2, 2)
    at = {f: one.value for f, one in result.sensitivities.items()}
    assert at == {0.25: 0.5, 0.5: 1, 1: 1, 2: 1, 4: 1, 8: 1}
    assert result.score.value == pytest.approx(5.5 / 6)


def test_a_lesion_that_is_missed_lowers_every_sensitivity():
    hits = [Hits(np.array([]), np.array([0.9, 0.0]), 2), Hits(np.array([]), np.array([]), 0)]
    assert froc(hits, repeats=0).score.value == 0.5


def test_counts_and_score_are_monais(rng):
    mine, false, true, targets = [], [], [], 0
    for _ in range(12):
        labels = np.zeros((60, 60), np.int64)
        labels[5:15, 5:15], labels[30:50, 30:40], labels[30:40, 5:9] = 1, 2, 3
        x, y = rng.integers(0, 60, (2, 25))
        # MONAI keeps scores of lesions in float32.
        scores = (rng.random(25).astype(np.float32) + 0.01).astype(np.float64)
        found = compute_fp_tp_probs(scores, y, x, labels, [3])
        false.append(found[0])
        true.append(found[1])
        targets += found[2]
        lesions = Lesions(labels, Box(0, 0, 60, 60), frozenset({3}))
        mine.append(count_hits(lesions, x + 0.5, y + 0.5, scores))
        np.testing.assert_array_equal(np.sort(mine[-1].false), np.sort(found[0]))
    curve = compute_froc_curve_data(
        np.concatenate(false), np.concatenate(true).astype(np.float64), targets, 12
    )
    result = froc(mine, repeats=0)
    # Theirs begins at the highest count, and repeats nothing at the end.
    np.testing.assert_allclose(result.false_per_slide, curve[0][::-1], atol=1e-12)
    np.testing.assert_allclose(result.sensitivity, curve[1][::-1], atol=1e-12)
    expected = compute_froc_score(*curve, eval_thresholds=FALSE_POSITIVES)
    assert result.score.value == pytest.approx(float(expected), abs=1e-12)


def test_intervals_are_over_slides_or_patients(rng):
    hits = [
        Hits(rng.random(3) + 0.1, (rng.random(2) + 0.1) * (rng.random(2) > 0.4), 2)
        for _ in range(20)
    ]
    by_slide = froc(hits, repeats=100).score
    assert by_slide.low < by_slide.value < by_slide.high
    assert froc(hits, repeats=100).score == by_slide
    assert "one group" in str(froc(hits, ["p"] * 20).score)


def test_what_has_no_score_is_refused():
    with pytest.raises(ValueError, match="no lesion to be found"):
        froc([Hits(np.array([0.5]), np.array([]), 0)])
    lesions = find_lesions(mask((1000, 1000, 400)))
    for score in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="must be positive"):
            count_hits(lesions, np.zeros(1), np.zeros(1), np.array([score]))
    odd = SlideMap(np.ones((4, 8)), Box(0, 0, 100, 100), Mpp(0.25, 0.25))
    with pytest.raises(ValueError, match="square pixels"):
        find_lesions(odd)


def test_a_mask_without_tumour_has_no_lesions():
    lesions = find_lesions(mask())
    assert (lesions.targets, lesions.labels.max()) == ([], 0)
    hits = count_hits(lesions, px([10, -5, 1e9]), px([10, 10, 10]), np.ones(3))
    assert len(hits.false) == 3


class Rectangle:
    """A region that is one rectangle of level-0 pixels."""

    names = ("tumour",)

    def __init__(self, x, y, width, height):
        self.edges = x, y, x + width, y + height

    def covered(self, boxes, names=None):
        x, y, right, bottom = self.edges
        wide = np.minimum(right, boxes[:, 0] + boxes[:, 2]) - np.maximum(x, boxes[:, 0])
        high = np.minimum(bottom, boxes[:, 1] + boxes[:, 3]) - np.maximum(y, boxes[:, 1])
        return (wide.clip(0) * high.clip(0) / (boxes[:, 2] * boxes[:, 3]))[None]


def test_regions_are_drawn_on_the_challenges_raster():
    step = LESION_MPP / 0.25
    region = Rectangle(10 * step, 40.4 * step, 30 * step, 20 * step)
    found = lesion_mask(region, Size(3000, 4000), Mpp(0.25, 0.25), ["tumour"])
    assert found.mpp.x == pytest.approx(LESION_MPP)
    rows, columns = np.nonzero(found.values)
    assert (columns.min(), columns.max()) == (10, 39)
    assert (rows.min(), rows.max()) == (40, 59)  # rows covered by half at least
    assert found.values.sum() == 20 * 30
