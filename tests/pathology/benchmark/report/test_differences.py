"""A network less its twin: by seed, and by example where there are examples."""

import math

import pytest

from pathology.benchmark.report.differences import backbone_difference
from pathology.benchmark.report.results import read_studies
from pathology.benchmark.report.tables import backbone_tables
from tests.pathology.benchmark.report.made import results

OPTIONS = {"data": ("tissue",), "examples": 12, "patients": 6, "metrics": ("epg", "saco", "abpc")}


@pytest.fixture(scope="module")
def study():
    (found,) = read_studies(results(**OPTIONS))
    return found


def test_pairs_are_subtracted_seed_by_seed(study):
    metric = next(m for m in study.backbone_metrics if m.name == "ece")
    gap = backbone_difference(study, "tissue", "bcos_resnet18", "resnet18", metric)
    rows = study.rows.query("metric == 'ece'").set_index(["backbone", "seed"])["value"]
    each = [rows["bcos_resnet18", s] - rows["resnet18", s] for s in (0, 1)]
    assert gap.estimate.value == pytest.approx(sum(each) / 2)
    assert (gap.estimate.low, gap.estimate.high) == pytest.approx((min(each), max(each)))
    assert math.isnan(gap.p)


def test_pairs_with_values_by_example_are_tested():
    rows = results(**OPTIONS)
    base = rows[(rows["metric"] == "epg") & (rows["method"] == "smoothgrad")].copy()
    base["method"], base["metric"], base["group"] = "", "right", "accuracy"
    base.loc[base["backbone"] == "bcos_resnet18", "value"] -= 1
    (study,) = read_studies(base)
    metric = study.backbone_metrics[0]
    gap = backbone_difference(study, "tissue", "bcos_resnet18", "resnet18", metric)
    assert gap.estimate.value == pytest.approx(-1, abs=0.2)
    assert gap.p == pytest.approx(2 / 2**6)
    table = backbone_tables(study)[1]
    assert "p 0.031" in table.rows[0][1].small
    assert table.rows[0][1].kind == "worse"
