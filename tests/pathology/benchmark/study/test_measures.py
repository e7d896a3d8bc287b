"""Groups of metrics: the true map ranks first, noise last, a constant never wins."""

import math
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from bcos_vit.attribution import make_method
from pathology.benchmark.study.measures import GROUPS, METRICS, Subject, UnknownMaskError
from pathology.map_quality.stability import Stability
from tests.pathology.benchmark.study.made_subject import (
    MadeSet,
    Seeing,
    examples,
    made_set,
    measured,
    numbers,
    subject,
)

SEEING, NOISE, CONSTANT = Seeing(), Seeing(sees=False), make_method("constant")
FEW = {
    "faithfulness": {"examples": 4, "squares": 20, "steps": 8, "parts": 0},
    "worst_case": {"examples": 1, "rounds": 2, "samples": 20},
    "stability": {"examples": 3},
    "sanity": {"examples": 4},
    "folds": {"folds": 2, "examples": 6},
    "grid": {"mosaics": 6},
    "cost": {"images": 2, "seconds": 0.0},
    "localisation": {"repeats": 50},
}


@pytest.mark.parametrize("group", GROUPS)
def test_values_are_those_of_the_catalogue(group):
    for method in (SEEING, None):
        made = subject(method)
        try:
            values = measured(group, made, **FEW.get(group, {}))
        except UnknownMaskError:
            continue  # the runner makes undefined values of it
        assert values
        keys = [(v.metric, v.example, v.stratum) for v in values]
        assert len(set(keys)) == len(keys)
        for each in values:
            told = METRICS[group][each.metric]
            assert (each.group, each.unit, each.better) == (group, told.unit, told.better)
            assert each.headline == told.headline
            assert each.note or math.isfinite(each.value), each


@pytest.mark.parametrize(
    ("group", "metric"),
    [(g, m) for g, ms in METRICS.items() for m, told in ms.items() if told.headline
     if g not in ("cost",)],
)  # fmt: skip
def test_the_true_map_is_ahead_of_noise_and_of_a_constant(group, metric):
    means = []
    for method in (SEEING, NOISE, CONSTANT):
        found = numbers(measured(group, method, **FEW.get(group, {})), metric)
        # A value that does not exist is no win.
        means.append(np.nanmean(found) if np.isfinite(found).any() else -math.inf)
    assert means[0] > means[1]
    assert means[0] > means[2]


def test_the_oracle_is_perfect_where_masks_are_known():
    values = measured("localisation", None, repeats=20)
    for metric in ("epg", "ap", "auroc", "rra", "dice", "iou", "pooled_ap", "pxap"):
        assert np.allclose(numbers(values, metric), 1), metric
    with pytest.raises(UnknownMaskError):
        subject(None).explain(np.zeros((1, 16, 16, 3), np.uint8), np.array([1]))


def test_localisation_by_hand():
    values = measured("localisation", CONSTANT, repeats=20)
    # A map of ones has the mask's share of its values in the mask: 16 of 256 pixels.
    assert np.allclose(numbers(values, "epg"), 1 / 16)
    assert np.allclose(numbers(values, "concentration"), 1)
    assert numbers(values, "region_epg") == pytest.approx([20 / 256] * 4)
    # Pooled over tiles without evidence, too: half of the tiles.
    assert numbers(values, "pooled_ap") == pytest.approx([1 / 32])
    pooled = next(v for v in values if v.metric == "pooled_ap")
    assert "no unit" in pooled.note
    assert {v.example for v in values if v.metric == "epg"} == {f"tile3_{i}" for i in (1, 3, 5, 7)}


def test_sets_without_masks_have_no_localisation_and_say_so():
    plain = replace(made_set(), masks=())
    [*values] = measured("localisation", subject(SEEING, tiles=plain))
    assert all(math.isnan(v.value) and "no masks" in v.note for v in values)


def test_the_ledger_by_hand():
    made = subject(SEEING)
    values = measured("ledger", made)
    assert np.allclose(numbers(values, "completeness_gap"), 0, atol=1e-6)
    pixels = made.maps(made.predicted()).sum((1, 2))
    assert numbers(values, "pixel_share") == pytest.approx(abs(pixels) / (abs(pixels) + 0.5))
    assert numbers(values, "bias_share") == pytest.approx(0.5 / (abs(pixels) + 0.5))
    assert not numbers(values, "position_share").any()


def test_what_no_constant_names_is_no_part_of_the_pixels():
    @dataclass(frozen=True)
    class FromBlack(Seeing):
        """Its maps are twice as large as they ought to be, and it says nothing of the rest."""

        def __call__(self, classifier, images, target):
            found = super().__call__(classifier, images, target)
            return replace(found, maps=2 * found.maps, constants={})

    made = subject(FromBlack())
    values = measured("ledger", made)
    pixels = made.maps(made.predicted()).astype(np.float64).sum((1, 2))
    rest = made.logits().max(1) - pixels
    shares = abs(pixels) / (abs(pixels) + abs(rest))
    assert numbers(values, "pixel_share") == pytest.approx(shares)
    assert numbers(values, "other_share") == pytest.approx(1 - shares)
    assert shares.max() < 0.9


def test_evidence_in_tiles_of_another_class_is_no_error():
    tiles = made_set()
    tiles.parts["test"].masks["evidence"][0, 0, 0] = True
    values = measured("localisation", subject(None, tiles=tiles), repeats=0)
    assert numbers(values, "pooled_ap") == [1]


def test_only_maps_that_are_measured_are_made():
    asked = []

    class Counting(Seeing):
        def __call__(self, classifier, images, target):
            asked.extend(target.tolist())
            return super().__call__(classifier, images, target)

    measured("localisation", Counting(), repeats=0)
    # Eight test tiles, and the four of validation with evidence, all for the class of evidence.
    assert asked == [1] * 12


def test_thresholds_are_chosen_on_validation():
    tiles = made_set()
    tiles.parts["val"].masks["evidence"][1::2] = True
    # All of a tile is the best there; on test it takes all pixels for a mask of a sixteenth.
    values = measured("localisation", subject(SEEING, tiles=tiles), repeats=0)
    assert numbers(values, "dice") == pytest.approx([2 / 17] * 4)


def test_stability_is_by_kind_and_so_are_the_reasons(monkeypatch):
    told = {"stain": "the answer changes: logit 1 to 2", "shift": "a map is constant"}

    def under(question, explain, *, changes):
        assert question.target == predicted[len(asked)]
        asked.append(question.image)
        return [
            Stability(each.name, math.nan if note else 0.5, math.nan, 1.0, 1.0, note)
            for each in changes
            for note in [told.get(each.name.split()[0], "")]
        ]

    asked = []
    made = subject(SEEING)
    predicted = made.predicted()
    # The package has the function under the module's name.
    module = sys.modules["pathology.benchmark.study.measures.stability"]
    monkeypatch.setattr(module, "stability_of", under)
    values = measured("stability", made, examples=2)
    assert np.array_equal(asked, made.test.images[:2].astype(np.float32) / 255)
    assert numbers(values, "scanner_stability").tolist() == [0.5, 0.5]
    for kind, note in told.items():
        mine = [v for v in values if v.metric == f"{kind}_stability"]
        assert all(math.isnan(v.value) and v.note == note for v in mine)
    # Two shifts of three are within tiles of 16 px.
    assert numbers(values, "answers_held") == pytest.approx([6 / 10] * 2)


def test_removed_cells_become_the_glass_of_training_tiles(monkeypatch):
    seen = []
    made = subject(SEEING)
    made.tile_set.parts["train"].images[:, :8] = 235
    score = Subject.score

    def watched(self, images):
        seen.append(images)
        return score(self, images)

    monkeypatch.setattr(Subject, "score", watched)
    measured("faithfulness", made, **{**FEW["faithfulness"], "examples": 1})
    colours = np.concatenate([each.reshape(-1, 3) for each in seen])
    assert (abs(colours - 235 / 255) < 1e-6).all(1).any()


def test_every_method_meets_the_same_mosaics_and_squares():
    class Looking(Seeing):
        seen: ClassVar[list] = []

        def __call__(self, classifier, images, target):
            self.seen.append(images.numpy().copy())
            return super().__call__(classifier, images, target)

    first, second = Looking(), Looking(sees=False)
    Looking.seen = []
    measured("grid", first, mosaics=4)
    once = np.concatenate(Looking.seen)
    Looking.seen = []
    measured("grid", second, mosaics=4)
    assert np.array_equal(once, np.concatenate(Looking.seen))
    values = measured("faithfulness", SEEING, **FEW["faithfulness"])
    again = measured("faithfulness", SEEING, **FEW["faithfulness"])
    assert np.array_equal(*([v.value for v in each] for each in (values, again)), equal_nan=True)


def test_maps_of_other_networks_and_classes_are_compared():
    values = measured("sanity", SEEING, examples=4)
    # Of tiles with a square; without one the map is zero, and has no order. The second class's map
    # is the negative, and the network of shuffled labels the same one here.
    for metric, wanted in (("class_similarity", -1), ("label_similarity", 1)):
        assert numbers(values, metric)[1::2] == pytest.approx(wanted)
        assert np.isnan(numbers(values, metric)[::2]).all()


def marked_set():
    """Test tiles in pairs; the mark is a green corner that adds nothing to darkness."""
    base = examples(4, 3)
    image, evidence = base.images[[1, 1, 0, 0]].copy(), base.masks["evidence"][[1, 1, 0, 0]]
    marks = np.zeros_like(evidence)
    marks[[0, 3], :3, :3] = True
    image[marks] = (30, 30, 30)
    test = replace(
        base,
        images=image,
        labels=np.array([1, 1, 0, 0]),
        masks={"evidence": evidence, "region": evidence, "confounder": marks},
        columns=pd.DataFrame(
            {
                "confounder": ["pen", "", "", "pen"],
                "stratum": ["aligned", "swapped", "aligned", "swapped"],
                "base": ["a", "a", "b", "b"],
            }
        ),
    )
    plain = made_set(("evidence", "region", "confounder"))
    assert isinstance(plain, MadeSet)
    return replace(plain, parts={**plain.parts, "test": test, "val": test})


def test_a_mark_that_is_the_whole_tile_is_not_pointed_at():
    tiles = marked_set()
    tiles.parts["test"].masks["confounder"][[0, 3]] = True
    values = measured("confounder", subject(SEEING, tiles=tiles))
    for metric in ("mark_epg", "mark_concentration"):
        mine = [v for v in values if v.metric == metric]
        assert all(math.isnan(v.value) and "whole image" in v.note for v in mine)
    assert np.isfinite(numbers(values, "mark_evidence_epg", "aligned")).all()


def test_a_planted_mark_is_measured_with_what_the_network_owes_to_it():
    made = subject(SEEING, tiles=marked_set())
    values = measured("confounder", made)
    share = numbers(values, "mark_epg", "swapped")
    assert share == pytest.approx([1.0])  # nothing else is dark there
    assert 0 < numbers(values, "mark_epg", "aligned")[0] < 1
    owed = 9 * (0.35 - 30 / 255)
    assert numbers(values, "mark_reliance", "swapped") == pytest.approx([owed], rel=1e-3)
    assert numbers(values, "mark_flip", "swapped") == [1]
    assert len(numbers(values, "mark_epg")) == 2
    assert not any(v.note for v in values if math.isfinite(v.value))
    for group in ("localisation", "grid"):
        told = measured(group, made, **FEW[group])
        assert all(math.isnan(v.value) and "planted" in v.note for v in told)
