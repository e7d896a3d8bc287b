"""Controls give a metric away that does not separate."""

import pytest

from pathology.benchmark.report.alarms import alarms
from pathology.benchmark.report.results import read_studies
from tests.pathology.benchmark.report.made import results

METRICS = ("epg", "gridpg", "pooled_ap", "saco")


@pytest.fixture(scope="module")
def study():
    (found,) = read_studies(results(examples=16, patients=16, metrics=METRICS))
    return found


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
