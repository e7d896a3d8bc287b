"""What workers are said to need."""

import pytest

from pathology.cli import main
from pathology.cli.on_cohort import OnCohort
from pathology.cohort.engine import Needs


def test_workers_of_a_cluster_share_cards_as_asked():
    on_ray = OnCohort(engine="ray")
    assert on_ray.needs("auto", 4) == Needs(5.0, 1.0, gpus_if_any=True)
    assert on_ray.needs("cuda", workers_per_gpu=2) == Needs(1.0, 0.5)
    assert on_ray.needs("cpu", workers_per_gpu=2).gpus == 0
    third = on_ray.needs("cuda", workers_per_gpu=3).gpus
    assert 3 * third <= 1 < 4 * third
    assert round(third * 10_000) == third * 10_000


@pytest.mark.parametrize("words", [["0", "--engine", "ray"], ["2"]])
def test_sharing_a_card_is_for_clusters(words, tmp_path, capsys):
    asked = ["features", "--slides", str(tmp_path), "--tiles", str(tmp_path), "--out",
             str(tmp_path / "out"), "--encoder", "resnet18"]  # fmt: skip
    assert main([*asked, "--workers-per-gpu", *words]) == 2
    assert "--workers-per-gpu must be at least 1, and 1 without" in capsys.readouterr().err
