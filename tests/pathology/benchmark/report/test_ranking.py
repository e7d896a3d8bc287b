"""Ranks over networks: what a block is, and who is left out."""

import numpy as np
import pytest

from pathology.benchmark.report.ranking import rankings
from pathology.benchmark.report.results import read_studies
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
