"""`tile`, `features` and `explain` on a cluster write what they write on one machine."""

import pytest

pytest.importorskip("ray")

from pathology.cli import main
from tests.made_cohort import NAMES, VERBS, made_cohort, results_in


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("verb", VERBS)
def test_a_cluster_writes_the_same_bytes(cluster, made, tmp_path, capsys, verb):
    # Models take their time to load in a process that begins.
    workers = 1 if verb == "explain" else 2
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", workers]
    assert main(made.words(verb, tmp_path, *ray)) == 0
    assert results_in(tmp_path) == made.results(verb)
    capsys.readouterr()
    # What a cluster has made, this machine need not.
    assert main(made.words(verb, tmp_path)) == 0
    assert capsys.readouterr().out.count("made before with the same settings") == len(NAMES)
