"""`pathology features` begun twice, on a cluster, with results in a store of Amazon's kind."""

import pytest

pytest.importorskip("ray")
pytest.importorskip("moto")

from tests.cluster.faulty_features import WORKER_CPUS, Features, end, error_line
from tests.cluster.faulty_work import waiting
from tests.cluster.own_cluster import own_cluster
from tests.made_stores import amazon


@pytest.fixture(scope="module")
def store():
    with amazon() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(store):
    with own_cluster(2 * WORKER_CPUS, store.variables) as cluster:
        yield cluster


@pytest.fixture
def features(tmp_path, cluster):
    return Features(tmp_path, 2)


def test_runs_into_one_place_at_once(features, cluster, store, tmp_path):
    """Two of the same share it; one with other settings is refused."""
    out = f"{store.url}/features"
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", "1"]
    features.fault("wait.2")
    runs = [features.start(out, *ray) for _ in range(2)]
    waiting(features.faults, 2)  # both are at work
    code, said = features.run(out, *ray, "--stored", "float16")
    assert code == 2, said
    assert "float16" in error_line(said)
    features.fault("go")
    for code, said in [end(run) for run in runs]:
        assert code == 0, said
    fetch_all(out, tmp_path / "fetched")
    features.check(tmp_path / "fetched")
    print("survived: two runs of the same into one bucket, and one with other settings")


def fetch_all(url, folder):
    from pathology.store.store import Store

    store = Store.at(url)
    for name in store.names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        store.get(name, folder / name)
