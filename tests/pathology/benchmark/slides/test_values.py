"""Values of slides whose lesion is planted: who is first, who is chance, what is not defined."""

import numpy as np
import pytest
import torch

from pathology.benchmark.slides.measures import MEASURES, REFUSED
from pathology.benchmark.slides.training import common_scale, train_aggregator
from pathology.benchmark.slides.values import slide_values
from tests.pathology.benchmark.slides.made import aggregator, planted_bag


def bags(rng, count, name, lesion=(6, 14), side=12):
    return [
        planted_bag(f"{name}{i}", int(rng.integers(*lesion)) * (i % 2), rng, side=side)
        for i in range(count)
    ]


def trained(name, epochs=25):
    rng = np.random.default_rng(1)
    train, val = bags(rng, 16, "train", side=6), bags(rng, 6, "val", side=6)
    scale = common_scale(train)
    return scale, train_aggregator(
        name, train, val, scale=scale, hidden=8, epochs=epochs, batch=4, rates=(3e-2,),
        seed=0, device=torch.device("cpu"),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["bcos_gated_sum", "abmil"])
def measured(request):
    rng = np.random.default_rng(2)
    scale, model = trained(request.param)
    test = bags(rng, 6, "test", lesion=(40, 60))  # long enough to be targets of FROC
    return request.param, slide_values(model, test, name="it", scale=scale)


def mean(values, metric, method="", stratum=""):
    found = [
        value.value
        for value in values
        if (value.metric, value.method, value.stratum) == (metric, method, stratum)
    ]
    assert found, metric
    return np.mean(found)


def test_it_learnt_and_controls_are_where_they_belong(measured):
    name, values = measured
    (area,) = (value for value in values if value.metric == "AUROC of slides")
    assert (area.value, area.low, area.high, area.note) == (1, 1, 1, "")
    own = "contribution" if name.startswith("bcos") else "lrp"
    for metric in ("AP of lesion tiles", "AUROC of lesion tiles", "rank accuracy of lesion tiles"):
        oracle, random = mean(values, metric, "oracle"), mean(values, metric, "random")
        assert oracle == 1
        assert random < mean(values, metric, own) <= oracle
    assert mean(values, "AUROC of lesion tiles", "random") == 0.5
    for metric in ("ABPC of tile flipping, logit", "necessity of top tiles, logit"):
        for method in (own, "removal"):
            assert mean(values, metric, "random") < mean(values, metric, method)
    assert (
        mean(values, "FROC of lesions", "random") < 1 == mean(values, "FROC of lesions", "oracle")
    )
    assert mean(values, "top 20 tiles in lesion", "oracle") == 1


def test_less_of_a_lesion_is_less(measured):
    _, values = measured
    logits = [
        mean(values, "logit of a small lesion", stratum=f"{tiles} lesion tiles")
        for tiles in (0, 4, 32)
    ]
    assert logits == sorted(logits)
    assert mean(values, "small lesion is found", stratum="0 lesion tiles") < 1


def test_minimal_sets_are_lesion(measured):
    _, values = measured
    assert mean(values, "minimal sufficient set, in lesion") > 0.5
    assert mean(values, "minimal necessary set") > 0
    assert mean(values, "minimal necessary set, forward passes saved") > 144


def test_rows(measured):
    name, values = measured
    assert {value.backbone for value in values} == {"it"}
    assert {value.metric for value in values} == set(MEASURES)
    for value in values:
        unit, better, headline = MEASURES[value.metric]
        assert (value.unit, value.better, value.headline) == (unit, better, headline)
        assert value.patient == value.example
        if np.isnan(value.value):
            assert value.note
    keys = [(v.metric, v.method, v.example, v.stratum) for v in values]
    assert len(set(keys)) == len(keys)
    refused = {value.method for value in values if value.metric == REFUSED}
    undefined = {"additive", "lrp"} if name.startswith("bcos") else {"contribution", "additive"}
    assert refused == undefined
    few = [value.note for value in values if value.metric == "sufficiency of top tiles"]
    assert set(few) == {"added to 3 slides only"}


def test_the_same_again():
    rng = np.random.default_rng(0)
    test, model = bags(rng, 4, "t", side=5), aggregator("abmil", dtype=torch.float32)
    first, second = (
        slide_values(model, test, name="it", methods=["random", "removal"]) for _ in range(2)
    )
    assert [repr(value) for value in first] == [repr(value) for value in second]


def test_undefined_values_say_why():
    """Lesions too small for FROC; an aggregator that calls nothing positive."""
    rng = np.random.default_rng(0)
    test = bags(rng, 4, "t", lesion=(1, 2), side=5)
    model = aggregator("abmil", dtype=torch.float32)
    model.rescale([1.0], [-50.0])
    values = slide_values(model, test, name="it", methods=["random"])
    notes = {value.metric: value.note for value in values if np.isnan(value.value)}
    assert "isolated tumour cells" in notes["FROC of lesions"]
    assert "not called positive" in notes["minimal sufficient set"]
    # Fresh weights and four slides: chance is within the interval.
    notes = {value.metric: value.note for value in values}
    assert notes["AUROC of slides"].startswith("no better than chance")
    transmil = aggregator("transmil", dtype=torch.float32)
    transmil.rescale([1.0], [50.0])
    values = slide_values(transmil, test, name="it", methods=["random"])
    notes = {value.metric: value.note for value in values if np.isnan(value.value)}
    assert "no closed form" in notes["minimal necessary set"]


def test_what_is_refused():
    rng = np.random.default_rng(0)
    test = bags(rng, 4, "t", side=3, lesion=(1, 3))
    with pytest.raises(ValueError, match="got 'grad'"):
        slide_values(aggregator("abmil"), test, name="it", methods=["grad"])
    with pytest.raises(ValueError, match="one output"):
        slide_values(aggregator("abmil", outputs=2), test, name="it")
    with pytest.raises(ValueError, match="slides without"):
        slide_values(aggregator("abmil", dtype=torch.float32), test[1::2], name="it")
    with pytest.raises(ValueError, match="train needs"):
        train_aggregator(
            "abmil", test[::2], test, scale=1.0, hidden=8, epochs=1, batch=2, rates=(1e-3,),
            seed=0, device=torch.device("cpu"),
        )  # fmt: skip
