"""Planted effects are found, ties are left open, and nothing is tested that may not be."""

from collections import Counter

import numpy as np
import pytest

from pathology.benchmark.report.contests import (
    against_twins,
    is_comparable,
    marks,
    same_network,
)
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.results import read_studies
from pathology.metrics.comparison import holm, paired_difference
from tests.pathology.benchmark.report.made import results

METRICS = ("epg", "pooled_ap", "sds", "abpc", "saco")


@pytest.fixture(scope="module")
def study():
    (found,) = read_studies(results(data=("tissue",), examples=24, patients=24, metrics=METRICS))
    return found


def named(study, name):
    return next(one for one in study.metrics() if one.name == name)


def verdicts(contests, ours="bcos"):
    return Counter(one.verdict for one in contests if one.ours == ours)


def test_what_was_planted_is_found(study):
    assert set(verdicts(same_network(study, named(study, "epg")))) == {"better"}
    assert set(verdicts(same_network(study, named(study, "saco")))) == {"open"}
    lost = [c for c in same_network(study, named(study, "abpc")) if c.verdict == "worse"]
    assert {one.other for one in lost} == {"rise", "occlusion"}


def test_controls_and_ours_are_no_rivals(study):
    others = {one.other for one in same_network(study, named(study, "epg"))}
    assert not others & {"oracle", "random", "constant", "edge", "bcos", "bcos_contrastive"}


def test_a_contest_is_a_paired_difference_and_holm_over_all_networks(study):
    found = [one for one in same_network(study, named(study, "sds")) if one.ours == "bcos"]
    assert len({one.backbone for one in found}) == 2
    one = found[3]
    panel = study.panel(one.data, one.backbone, one.metric)
    a, b = panel.column("bcos"), panel.column(one.other)
    expected = paired_difference(panel.values[:, a], panel.values[:, b], panel.patients)
    assert one.difference.value == pytest.approx(expected.estimate.value)
    assert (one.p, one.pairs) == (pytest.approx(expected.p), expected.pairs)
    assert [c.adjusted for c in found] == pytest.approx(list(holm([c.p for c in found])))


def test_a_lower_value_is_better_where_it_is(study):
    rows = study.rows.copy()
    is_sds = rows["metric"] == "sds"
    rows.loc[is_sds, "value"] *= -1
    rows.loc[is_sds, "better"] = "lower"
    (turned,) = read_studies(rows)
    found = same_network(turned, named(turned, "sds"))
    assert set(verdicts(found)) == {"better"}
    assert all(one.difference.value < 0 < one.gain for one in found if one.ours == "bcos")


def test_values_of_all_together_are_not_tested(study):
    found = same_network(study, named(study, "pooled_ap"))
    assert set(verdicts(found)) == {"untested"}
    assert all(one.gain > 0 for one in found if one.ours == "bcos")


def test_twins_meet_only_by_metrics_that_mean_the_same_on_both(study):
    assert against_twins(study, named(study, "abpc")) == []
    found = against_twins(study, named(study, "epg"))
    assert {(c.backbone, c.other_backbone) for c in found} == {
        ("bcos_resnet18", "resnet18"), ("bcos_vitc_tiny", "vit_tiny"),
    }  # fmt: skip
    assert is_comparable(Metric("faithfulness", "sds"))
    assert is_comparable(Metric("idsds", "idsds"))
    assert not is_comparable(Metric("faithfulness", "insertion"))


def test_twins_are_paired_by_the_examples_that_both_have(study):
    rows = study.rows
    gone = (rows["backbone"] == "resnet18") & (rows["example"].isin(["tissue-000", "tissue-001"]))
    (less,) = read_studies(rows[~gone])
    found = [c for c in against_twins(less, named(less, "sds")) if c.other_backbone == "resnet18"]
    assert {(one.pairs, one.examples) for one in found} == {(22, 24)}


def test_the_best_is_marked_only_when_it_beats_all_others(study):
    panel = study.panel("tissue", "resnet18", named(study, "abpc"))
    assert marks(panel) == {"rise": "best"}
    tied = marks(study.panel("tissue", "resnet18", named(study, "saco")))
    assert set(tied.values()) == {"top"}
    assert len(tied) > 4
    assert not set(tied) & {"random", "oracle"}
    assert marks(study.panel("tissue", "resnet18", named(study, "pooled_ap"))) == {}


def test_methods_that_are_alike_seldom_get_a_mark_alone(rng):
    """Of 100 columns of noise one in which a method is beaten is as rare as the level says."""
    metric, none = Metric("faithfulness", "saco"), np.full((1, 3), np.nan)
    names = tuple(map(str, range(12)))
    alarms = 0
    for _ in range(100):
        noise = rng.normal(size=(1, 12, 3))
        panel = Panel(
            "d", "net", metric, ("a", "b", "c"), (0,), names, np.array(names), noise, none, none,
            none,
        )  # fmt: skip
        alarms += len(marks(panel)) < 3
    assert alarms <= 13  # 100 x 0.05 and 3.5 standard deviations


def test_nothing_defined_is_no_mark(study):
    panel = study.panel("tissue", "resnet18", named(study, "epg"))
    panel.values[:] = np.nan
    panel.__dict__.pop("means", None)
    assert marks(panel) == {}
