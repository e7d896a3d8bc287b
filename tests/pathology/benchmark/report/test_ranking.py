"""Ranks over networks, agreement of metrics and seeds, controls that give a metric away."""

import numpy as np
import pytest

from pathology.benchmark.report.ranking import agreement, alarms, rankings, seed_stability
from pathology.benchmark.report.results import read_studies
from pathology.metrics.ranks import kendall_tau
from tests.pathology.benchmark.report.made import results

METRICS = ("epg", "gridpg", "pooled_ap", "saco")


@pytest.fixture(scope="module")
def study():
    (found,) = read_studies(results(examples=16, patients=16, metrics=METRICS))
    return found


def test_a_block_is_a_network_on_a_tile_set_whatever_its_seeds(study):
    found = rankings(study)
    one = next(r for r in found if r.title == "EPG" and r.family == "bcos")
    assert len(one.blocks) == 4
    assert one.ranks.shape == (4, len(one.methods))
    best = dict(zip(one.methods, one.mean, strict=True))
    assert sorted(best, key=best.get)[:2] == sorted(best, key=best.get)[:2]
    assert {"bcos", "bcos_contrastive"} == set(sorted(best, key=best.get)[:2])
    assert one.left_out == {"gradcam": 2, "rollout": 2}
    assert "random" not in best
    assert one.p < 0.01


def test_all_metrics_together_rank_mean_ranks(study):
    found = [r for r in rankings(study) if r.family == "conventional"]
    together = found[-1]
    assert together.is_overall
    # gradcam and rollout fit half of the networks, lime failed once.
    assert set(together.left_out) == {"gradcam", "rollout", "lime"}
    alone = np.mean(
        [
            [dict(zip(r.methods, row, strict=True))[name] for name in together.methods]
            for r in found[:-1]
            for row in [r.ranks[0]]
        ],
        axis=0,
    )
    assert list(np.argsort(alone)) == list(np.argsort(together.ranks[0]))


def test_one_block_is_no_ranking():
    rows = results(data=("tissue",), examples=6, patients=6, backbones=("resnet18",))
    (one,) = read_studies(rows)
    assert rankings(one) == []


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


def test_controls_give_a_blind_metric_away(study):
    found = alarms(study, study.headline)
    assert {one.metric.name for one in found} == {"saco"}
    assert "oracle" not in {one.control for one in found}
    for one in found:
        limit = one.methods / 2 if one.control == "random" else 1
        assert one.rank <= limit


@pytest.mark.parametrize("control", ["constant", "edge", "random"])
def test_a_control_that_wins_is_told(study, control):
    rows = study.rows.copy()
    wins = (rows["metric"] == "epg") & (rows["method"] == control)
    rows.loc[wins & (rows["backbone"] == "vit_tiny"), "value"] = 5.0
    (cheated,) = read_studies(rows)
    found = [a for a in alarms(cheated, cheated.headline) if a.metric.name == "epg"]
    assert {(a.control, a.backbone, a.rank) for a in found} == {(control, "vit_tiny", 1)}
