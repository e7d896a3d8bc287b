"""Metrics agree where they find the same, trainings where they rank alike."""

import pytest

from pathology.benchmark.report.agreement import agreement, seed_stability
from pathology.benchmark.report.results import read_studies
from pathology.metrics.ranks import kendall_tau
from tests.pathology.benchmark.report.made import results

METRICS = ("epg", "gridpg", "pooled_ap", "saco")


@pytest.fixture(scope="module")
def study():
    (found,) = read_studies(results(examples=16, patients=16, metrics=METRICS))
    return found


def test_metrics_that_find_the_same_agree_and_a_blind_one_does_not(study):
    found = agreement(study, study.headline)
    names = [one.name for one in found.metrics]
    tau = {(a, b): found.tau[i, j] for i, a in enumerate(names) for j, b in enumerate(names)}
    assert tau["epg", "gridpg"] > 0.6
    assert abs(tau["epg", "saco"]) < 0.4
    assert (found.tau == found.tau.T).all()
    assert found.counts[0, 1] == 8


def test_a_metric_that_is_better_lower_agrees_with_its_mirror(study):
    rows = study.rows.copy()
    is_grid = rows["metric"] == "gridpg"
    rows.loc[is_grid, "value"] *= -1
    rows.loc[is_grid, "better"] = "lower"
    (turned,) = read_studies(rows)
    assert agreement(turned, turned.headline).tau == pytest.approx(
        agreement(study, study.headline).tau
    )


def test_seeds_are_compared_within_a_network(study):
    found = {one.metric.name: one for one in seed_stability(study, study.headline)}
    assert found["epg"].count == 8
    assert found["epg"].tau > 0.6 > found["saco"].tau
    metric = found["epg"].metric
    panels = list(study.panels(metric))
    kept = [
        i
        for i, n in enumerate(panels[0].methods)
        if n not in ("oracle", "random", "constant", "edge")
    ]
    taus = kendall_tau(*panels[0].seed_means[:, kept])
    assert found["epg"].lowest <= taus
