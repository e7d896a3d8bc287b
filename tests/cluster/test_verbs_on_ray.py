"""`tile`, `features` and `explain` on a cluster write what they write on one machine."""

import pytest

pytest.importorskip("ray")

from pathology.cli import main
from tests.made_cohort import VERBS, made_cohort, results_in


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("verb", VERBS)
def test_a_cluster_writes_the_same_bytes(cluster, made, tmp_path, capsys, verb):
    words = made.words(
        verb, tmp_path, "--engine", "ray", "--address", cluster.address, "--workers", 2
    )
    assert main(words) == 0
    assert results_in(tmp_path) == made.results(verb)
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.count("made before with the same settings") == 3
