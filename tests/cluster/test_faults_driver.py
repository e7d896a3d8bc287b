"""`pathology features` that is killed and begun again, or begun twice, on a cluster."""

import os
import signal

import pytest

pytest.importorskip("ray")

from tests.cluster.faulty_features import WORKER_CPUS, Features, end, error_line, read_all
from tests.cluster.faulty_work import wait_until_gone, waiting
from tests.cluster.own_cluster import own_cluster


@pytest.fixture(scope="module")
def cluster():
    with own_cluster(2 * WORKER_CPUS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def module_features(tmp_path_factory):
    return Features(tmp_path_factory.mktemp("features"), 4)


@pytest.fixture
def features(module_features):
    module_features.clear()
    return module_features


def ray(cluster, workers):
    return ["--engine", "ray", "--address", cluster.address, "--workers", str(workers)]


def survived(text):
    print(f"survived: {text}")


def stamps(folder):
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_that_is_killed_and_begun_again(features, cluster, tmp_path):
    out = tmp_path / "out"
    features.fault("wait.7")  # both workers, in the middle of their second slides
    process = features.start(out, *ray(cluster, 2))
    workers = waiting(features.faults, 2)
    os.kill(process.pid, signal.SIGKILL)
    assert end(process)[0] == -signal.SIGKILL
    # Nobody is left who would write beside the next run.
    wait_until_gone(workers)
    done = {path: stamp for path, stamp in stamps(out).items() if path.suffix == ".h5"}
    assert len(done) == 2
    features.clear()
    code, said = features.run(out, *ray(cluster, 2))
    assert code == 0, said
    after = stamps(out)
    assert {path: after[path] for path in done} == done
    assert said.count("made before") == 2
    features.check(out)
    survived("a run that was killed with two of four slides done; they were not done again")


def test_runs_into_one_folder_at_once(features, cluster, tmp_path):
    """Two of the same share it; one with other settings is refused."""
    out = tmp_path / "out"
    features.fault("wait.2")
    runs = [features.start(out, *ray(cluster, 1)) for _ in range(2)]
    waiting(features.faults, 2)  # both are at work
    code, said = features.run(out, *ray(cluster, 1), "--stored", "float16")
    assert code == 2, said
    assert "float16" in error_line(said)
    assert read_all(out) == {}
    features.fault("go")
    for code, said in [end(run) for run in runs]:
        assert code == 0, said
    features.check(out)
    survived("two runs of the same into one folder, and one with other settings")
