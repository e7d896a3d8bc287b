"""Rows as panels: what is missing stays missing, and nothing is said twice."""

import numpy as np
import pandas as pd
import pytest

from pathology.benchmark.report.metric import Metric, title
from pathology.benchmark.report.results import read_studies
from pathology.metrics.comparison import group_means
from tests.pathology.benchmark.report.made import results, without_masks

SMALL = {"data": ("tissue",), "examples": 12, "patients": 6, "metrics": ("epg", "sds", "pooled_ap")}


@pytest.fixture(scope="module")
def table():
    return results(**SMALL)


@pytest.fixture(scope="module")
def study(table):
    (found,) = read_studies(table)
    return found


def metric(study, name):
    return next(one for one in study.metrics() if one.name == name)


def test_what_was_compared(study):
    assert study.methods[:2] == ["bcos", "bcos_contrastive"]
    assert study.methods[-4:] == ["oracle", "random", "constant", "edge"]
    assert [one.name for one in study.headline] == ["epg", "pooled_ap", "sds"]
    assert study.seeds == [0, 1]
    assert study.twins("bcos_resnet18") == ["resnet18"]


def test_a_panel_is_a_mean_over_seeds_of_each_example(study, table):
    panel = study.panel("tissue", "resnet18", metric(study, "epg"))
    rows = table.query("backbone == 'resnet18' and metric == 'epg' and method == 'rise'")
    rows = rows[rows["stratum"] == ""]
    expected = rows.groupby("example")["value"].mean()
    column = panel.column("rise")
    assert panel.values[:, column] == pytest.approx(expected[list(panel.examples)].to_numpy())
    assert panel.means[column] == pytest.approx(expected.mean())
    (estimate,) = group_means(panel.values[:, column], panel.patients)
    assert panel.estimates[column] == estimate
    assert len(set(panel.patients)) == 6


def test_an_example_without_a_value_in_one_training_has_none(table):
    gone = table.copy()
    at = gone.index[
        (gone["metric"] == "epg") & (gone["method"] == "rise") & (gone["seed"] == 1)
        & (gone["backbone"] == "resnet18") & (gone["example"] == "tissue-000")
    ]  # fmt: skip
    for changed in (gone.assign(value=gone["value"].where(~gone.index.isin(at))), gone.drop(at)):
        (study,) = read_studies(changed)
        panel = study.panel("tissue", "resnet18", metric(study, "epg"))
        i = panel.column("rise")
        assert np.isnan(panel.values[0, i])
        assert (panel.defined[i], panel.count) == (11, 12)
        assert panel.means[i] == pytest.approx(panel.values[1:, i].mean())


def test_values_of_all_examples_together_keep_the_outermost_ends(study):
    panel = study.panel("tissue", "resnet18", metric(study, "pooled_ap"))
    assert not panel.is_paired
    one = panel.estimates[0]
    assert one.low == panel.lows[:, 0].min()
    assert one.high == panel.highs[:, 0].max()
    assert one.value == pytest.approx(panel.together[:, 0].mean())


def test_refusals_are_no_values(study):
    assert "refused" not in set(study.values["group"])
    assert study.panel("tissue", "bcos_vitc_tiny", metric(study, "epg")).column("gradcam") is None


def test_strata_are_apart(study):
    rows = study.of_methods
    assert set(rows[rows["group"] == "confounder"]["stratum"]) == {"mark: pen", "no mark"}
    known = Metric("confounder", "mark_epg")
    assert study.panel("tissue", "resnet18", known) is None
    assert study.panel("tissue", "resnet18", known, "no mark") is not None


def test_a_set_without_masks_is_no_panel_but_is_counted():
    rows = without_masks(results(**{**SMALL, "data": ("tissue", "cells")}), "cells", ["epg"])
    (study,) = read_studies(rows)
    epg = metric(study, "epg")
    assert {one.data for one in study.panels(epg)} == {"tissue"}
    assert study.panel("cells", "resnet18", epg) is None
    lost = study.values[study.values["data"] == "cells"].query("metric == 'epg' and stratum == ''")
    assert lost["value"].isna().all()
    assert len(lost) > 40


def test_missing_text_is_empty(table):
    holes = table.assign(note=pd.array([pd.NA] * len(table), "string"))
    (study,) = read_studies(holes)
    assert set(study.rows["note"]) == {""}


def test_columns_must_be_there(table):
    with pytest.raises(ValueError, match="lack columns pair, stratum"):
        read_studies(table.drop(columns=["pair", "stratum"]))


def test_a_value_may_not_stand_twice(table):
    doubled = pd.concat([table, table[table["metric"] == "sds"].head(1)])
    with pytest.raises(ValueError, match=r"stands twice: data tissue, .*metric sds"):
        read_studies(doubled)


def test_a_metric_has_one_better_side(table):
    both = table.copy()
    both.loc[both.index[both["metric"] == "epg"][0], "better"] = "lower"
    with pytest.raises(ValueError, match="localisation/epg is better both ways"):
        read_studies(both)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pooled_ap", "Pooled AP"), ("epg", "EPG"), ("region_epg", "Region EPG"),
        ("balanced_accuracy", "Balanced accuracy"), ("FROC of lesions", "FROC of lesions"),
    ],
)  # fmt: skip
def test_names_in_words(name, words):
    assert title(name) == words


def test_one_patient_draws_no_interval(table):
    few = table["patient"].isin(["patient-00", ""]) | (table["method"] != "rise")
    (study,) = read_studies(table[few])
    panel = study.panel("tissue", "resnet18", metric(study, "epg"))
    alone, others = (panel.estimates[panel.column(name)] for name in ("rise", "occlusion"))
    assert panel.defined[panel.column("rise")] == 2
    assert np.isfinite(alone.value)
    assert np.isnan([alone.low, alone.high]).all()
    assert others.low < others.value < others.high
